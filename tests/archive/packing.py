"""Images in memory, to be packed into archives."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any, BinaryIO

from dockmirror.archive.archive_plan import PackedImage, plan_archive, read_archive
from dockmirror.oci.digest import Digest
from dockmirror.oci.media import IMAGE_CONFIGS, OCI_INDEX, OCI_MANIFEST

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def described(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    """Return a descriptor."""
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data), **more}


def manifest(config: bytes, *layers: bytes, kind: str = IMAGE_CONFIGS[0]) -> bytes:
    """Return an OCI manifest."""
    fields = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described(config, kind),
        "layers": [described(layer, LAYER) for layer in layers],
    }
    return json.dumps(fields).encode()


def index(**children: bytes) -> bytes:
    """Return an OCI index with an image for each architecture."""
    listed = [
        described(data, OCI_MANIFEST, platform={"os": "linux", "architecture": name})
        for name, data in children.items()
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}).encode()


def packed(name: str, root: bytes, *manifests: bytes, blobs: tuple[bytes, ...] = ()) -> PackedImage:
    """Return an image with these blobs."""
    tag = "" if "@" in name else name.rpartition(":")[2]
    held = {Digest.of(each): each for each in (root, *manifests)}
    return PackedImage(name, tag, Digest.of(root), held, {Digest.of(each): len(each) for each in blobs})


def archive(*images: PackedImage, blobs: tuple[bytes, ...] = ()) -> bytes:
    """Return all bytes of the archive."""
    held = {Digest.of(each): each for each in blobs}

    def opened(digest: Digest) -> BinaryIO:
        return io.BytesIO(held[digest])

    return b"".join(read_archive(plan_archive(images), opened))


def files(data: bytes) -> dict[str, bytes]:
    """Return the files in an archive, as Python's tarfile reads them."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = [member for member in tar if member.isfile()]
        return {member.name: (tar.extractfile(member) or io.BytesIO()).read() for member in members}


def write_tar(contents: Mapping[str, bytes], *members: tarfile.TarInfo) -> bytes:
    """Return a tar file of these files and other members, as other programs write it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5  # which makes a header of its own
            tar.addfile(info, io.BytesIO(data))
        for member in members:
            tar.addfile(member)
    return out.getvalue()


def make_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


class Counting(io.BytesIO):
    """A file that counts the bytes read."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data
