"""An image in a registry, which is Debian's docker-registry."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from pathlib import Path
from typing import Any

from demo.image import MANIFEST, digest_of

from .clients import skopeo
from .peers.peer import Peer

_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def push_image(registry: Peer, repositories: list[str], layers: int, size: int, directory: Path) -> str:
    """Push an image of random layers with the tag ``latest``, and return its digest."""
    layout = directory / "image"
    (layout / "blobs/sha256").mkdir(parents=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    contents = [_layer(number, size) for number in range(layers)]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(content) for content in contents]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _put(layout, _CONFIG, json.dumps(config).encode()),
        "layers": [_put(layout, _LAYER, gzip.compress(content, 1, mtime=0)) for content in contents],
    }
    described = _put(layout, MANIFEST, json.dumps(manifest).encode())
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    host = registry.url.partition("//")[2].partition("/")[0]
    for repository in repositories:
        image = f"docker://{host}/{repository}:latest"
        skopeo.copy("--dest-tls-verify=false", "--preserve-digests", f"oci:{layout}", image)
    return str(described["digest"])


def _layer(number: int, size: int) -> bytes:
    """Return an archive of one file, which clients can unpack."""
    file, member = io.BytesIO(), tarfile.TarInfo(f"file-{number}")
    member.size = size
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(member, io.BytesIO(random.Random(number).randbytes(size)))
    return file.getvalue()


def _put(layout: Path, media_type: str, data: bytes) -> dict[str, Any]:
    hexadecimal = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256" / hexadecimal).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{hexadecimal}", "size": len(data)}
