"""Images as files, from which clients take what they push."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

from .images import EMPTY, Image
from .media import OCI, Content

_REFERENCE = "org.opencontainers.image.ref.name"


def as_directory(image: Image, path: Path) -> Path:
    """Write an image for ``dir:`` of skopeo and its kin, every byte unchanged."""
    path.mkdir()
    (path / "version").write_text("Directory Transport Version: 1.1\n")
    (path / "manifest.json").write_bytes(image.manifest.data)
    for child in image.children:
        (path / f"{_hex(child.digest)}.manifest.json").write_bytes(child.manifest.data)
    for blob in (blob for each in (image, *image.children) for blob in each.blobs):
        (path / _hex(blob.digest)).write_bytes(blob.data)
    return path


def as_archive(image: Image, name: str, path: Path) -> Path:
    """An OCI image layout in a tar file, for containerd and podman; the image has that name."""
    described = image.manifest.descriptor(annotations={_REFERENCE: name, "io.containerd.image.name": name})
    index = {"schemaVersion": 2, "manifests": [described]}
    files = {f"blobs/sha256/{_hex(each.digest)}": each.data for each in image.everything()}
    files |= {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
    with tarfile.open(path, "w") as archive:
        for member, data in files.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def large_directory(path: Path, mebibytes: int, kind: str) -> str:
    """An artifact for ``dir:`` whose layer has so many mebibytes, nearly all of which take no room.

    :param kind: the layer's media type.
    :return: the layer's digest.
    """
    path.mkdir()
    (path / "version").write_text("Directory Transport Version: 1.1\n")
    layer = path / "layer"
    with layer.open("wb") as file:
        file.write(path.name.encode())
        file.truncate(mebibytes * 1024 * 1024)
    with layer.open("rb") as file:
        hexadecimal = hashlib.file_digest(file, "sha256").hexdigest()
    layer.rename(path / hexadecimal)
    config = Content(EMPTY, b"{}")
    (path / _hex(config.digest)).write_bytes(config.data)
    described = {"mediaType": kind, "digest": f"sha256:{hexadecimal}", "size": mebibytes * 1024 * 1024}
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI.manifest,
        "config": config.descriptor(),
        "layers": [described],
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    return f"sha256:{hexadecimal}"


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
