"""A small generated image."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from typing import Any

from attrs import field, frozen

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest_of(data: bytes) -> str:
    """Return the digest by which a registry names these bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@frozen
class Image:
    """The bytes of a manifest, and of its blobs by digest."""

    manifest: bytes = field(repr=False)
    blobs: dict[str, bytes] = field(repr=False)


def image(size: int) -> Image:
    """Make an image with one layer of about ``size`` bytes; it is always the same."""
    files = {"hello.txt": b"Hello from behind the mirror.\n", "filling": random.Random(size).randbytes(size)}
    archive = _tar(files)
    layer = gzip.compress(archive, 1, mtime=0)
    config = _json({
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(archive)]},
    })  # fmt: skip
    manifest = _json({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _descriptor(_CONFIG, config),
        "layers": [_descriptor(_LAYER, layer)],
    })  # fmt: skip
    return Image(manifest, {digest_of(blob): blob for blob in (config, layer)})


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _tar(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return written.getvalue()
