"""Images made of bytes that are random and yet always the same, with every digest known."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from dataclasses import dataclass
from typing import Any

from .media import DOCKER, OCI, Content, Family, sha256

EMPTY = "application/vnd.oci.empty.v1+json"


@dataclass(frozen=True)
class Image:
    """A manifest with the blobs and the manifests that it names."""

    manifest: Content
    config: Content | None = None
    layers: tuple[Content, ...] = ()
    children: tuple[Image, ...] = ()
    files: tuple[tuple[str, str], ...] = ()

    @property
    def digest(self) -> str:
        """The manifest's digest."""
        return self.manifest.digest

    @property
    def blobs(self) -> tuple[Content, ...]:
        """Configuration and layers."""
        return ((self.config,) if self.config else ()) + self.layers

    def everything(self) -> tuple[Content, ...]:
        """The manifest, the blobs, and those of all children."""
        return (
            self.manifest,
            *self.blobs,
            *(content for child in self.children for content in child.everything()),
        )


def image(
    seed: str, family: Family = DOCKER, layers: tuple[int, ...] = (20_000, 3_000), architecture: str = "amd64"
) -> Image:
    """An image that every client can unpack: each layer holds one file of so many random bytes.

    ``files`` names each file with the digest of its bytes.
    """
    names = [f"data/{number}" for number in range(len(layers))]
    datas = [_random(seed + name, size) for name, size in zip(names, layers, strict=True)]
    tars = [_tar(name, data) for name, data in zip(names, datas, strict=True)]
    configuration = {
        "architecture": architecture,
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": {"Cmd": ["/none"], "Labels": {"seed": seed}},
        "rootfs": {"type": "layers", "diff_ids": [sha256(tar) for tar in tars]},
        "history": [{"created": "2024-01-01T00:00:00Z", "created_by": name} for name in names],
    }
    config = Content(family.config, json.dumps(configuration).encode())
    packed = tuple(Content(family.layer, gzip.compress(tar, 0, mtime=0)) for tar in tars)
    return Image(
        manifest=_manifest(family, config, packed),
        config=config,
        layers=packed,
        files=tuple((name, sha256(data)) for name, data in zip(names, datas, strict=True)),
    )


def index(seed: str, family: Family = OCI) -> Image:
    """A multi-architecture image; the first of its children is for amd64."""
    architectures = ("amd64", "arm64", "s390x")
    children = tuple(image(f"{seed}-{each}", family, architecture=each) for each in architectures)
    described = [
        child.manifest.descriptor(platform={"architecture": architecture, "os": "linux"})
        for child, architecture in zip(children, architectures, strict=True)
    ]
    document = {"schemaVersion": 2, "mediaType": family.index, "manifests": described}
    return Image(manifest=Content(family.index, _json(document)), children=children)


def index_of(*children: Image) -> Image:
    """An index of these images, for no platform."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI.index,
        "manifests": [child.manifest.descriptor() for child in children],
    }
    return Image(manifest=Content(OCI.index, _json(document)), children=children)


def artifact(seed: str, subject: Image | None = None, size: int = 5_000) -> Image:
    """An OCI artifact that is not an image; as a *referrer* it names its subject."""
    config = Content(EMPTY, b"{}")
    layer = Content("application/vnd.example.notes", _random(seed, size))
    more: dict[str, Any] = {"artifactType": "application/vnd.example.notes"}
    if subject is not None:
        more["subject"] = subject.manifest.descriptor()
    return Image(manifest=_manifest(OCI, config, (layer,), **more), config=config, layers=(layer,))


def referrers(subject: Image, *referring: Image) -> tuple[str, Image]:
    """The tag and the index under which registries without the referrers API keep them."""
    described = [each.manifest.descriptor(artifactType="application/vnd.example.notes") for each in referring]
    document = {"schemaVersion": 2, "mediaType": OCI.index, "manifests": described}
    return subject.digest.replace(":", "-"), Image(
        manifest=Content(OCI.index, _json(document)), children=referring
    )


def _random(seed: str, size: int) -> bytes:
    """*size* bytes that depend on nothing but *seed*; made in pieces, which have a limit of their own."""
    source, piece = random.Random(seed), 1024 * 1024
    return b"".join(source.randbytes(min(piece, size - begin)) for begin in range(0, size, piece))


def _manifest(family: Family, config: Content, layers: tuple[Content, ...], **more: Any) -> Content:
    document = {
        "schemaVersion": 2,
        "mediaType": family.manifest,
        "config": config.descriptor(),
        "layers": [layer.descriptor() for layer in layers],
        **more,
    }
    return Content(family.manifest, _json(document))


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=3).encode()  # an indent that nobody would write again by chance


def _tar(name: str, data: bytes) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        directory = tarfile.TarInfo("data")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(directory)
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(data), 0o644
        tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()
