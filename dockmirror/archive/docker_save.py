"""Archives of ``docker save`` before version 25, and of podman's docker-archive, as OCI image layouts.

Such an archive has no manifests: only configurations and uncompressed layers.  The conversion generates the
manifest, so its digest differs from the registry's.

Sources: moby, image/spec/spec.md, "Combined Image JSON + Filesystem Changeset Format"; image/spec/v1.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

from attrs import frozen

from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from ..oci.media import IMAGE_CONFIGS, OCI_INDEX, OCI_MANIFEST
from .archive_files import ArchiveFile, ArchiveRefused, DocumentBudget, GeneratedFile, read_document
from .archive_plan import DOCKER_MANIFEST, IMAGE_NAME, INDEX, LAYOUT, blob_path

_MAX_LAYERS = 100_000
"""The largest number of layers in all images together."""
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_KEPT = ("architecture", "os", "config", "created")
"""The parts of a layer's description that are in an image's configuration, too."""
_EPOCH = "1970-01-01T00:00:00Z"
REPOSITORIES = "repositories"


def convert_to_layout(members: dict[str, ArchiveFile]) -> dict[str, ArchiveFile]:
    """Return the files of an OCI image layout with the archive's images.

    :raises ArchiveRefused: when the archive does not follow docker's format.
    """
    layout: dict[str, ArchiveFile] = {LAYOUT: GeneratedFile(b"{}")}
    try:
        images = _read_images(members)
        layers = {
            digest: members[path] for image in images for digest, path in image.layers if path in members
        }
        descriptors = [each for image in images for each in _describe(image, layers, layout)]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, DigestInvalid):
        raise ArchiveRefused(f"{DOCKER_MANIFEST} does not follow the format of 'docker save'") from None
    layout |= {blob_path(digest): member for digest, member in layers.items()}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}
    return {**layout, INDEX: GeneratedFile(json.dumps(index).encode())}


def convert_legacy_layout(members: dict[str, ArchiveFile]) -> dict[str, ArchiveFile]:
    """Return the files of an OCI image layout with the images of docker before version 1.10.

    Each layer is a directory with its description, which names its parent, and its uncompressed files.  The
    configuration is generated, too: such an image has none.

    :raises ArchiveRefused: when the archive does not follow docker's format.
    """
    try:
        names: dict[str, list[str]] = {}
        for name, tags in json.loads(read_document(members, REPOSITORIES)).items():
            for tag, top in tags.items():
                names.setdefault(top, []).append(f"{name}:{tag}")
        reader, files, images, count = _LegacyLayers(members), dict(members), [], 0
        for top, tagged in names.items():
            layers = list(reader.chain(top))
            count = _check_count(count + len(layers))
            files[f"{top}.json"] = GeneratedFile(json.dumps(reader.config(layers)).encode())
            paths = [f"{each}/layer.tar" for each in layers]
            images.append({"Config": f"{top}.json", "RepoTags": tagged, "Layers": paths})
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise ArchiveRefused(f"{REPOSITORIES} does not follow the format of 'docker save'") from None
    return convert_to_layout({**files, DOCKER_MANIFEST: GeneratedFile(json.dumps(images).encode())})


class _LegacyLayers:
    """The layers of an archive of docker before version 1.10; each is read once."""

    def __init__(self, members: dict[str, ArchiveFile]) -> None:
        self._members = members
        self._budget = DocumentBudget()
        self._documents: dict[str, dict[str, Any]] = {}
        self._digests: dict[str, str] = {}

    def chain(self, top: str) -> Iterator[str]:
        """Return a layer and its parents, the lowest one first."""
        found: dict[str, None] = {}
        current: str | None = top
        while current:
            if current in found:
                raise ArchiveRefused(f"{current} is its own parent")
            found[current] = None
            current = self._document(current).get("parent")
        return reversed(found)

    def config(self, layers: Sequence[str]) -> dict[str, Any]:
        """Return the configuration of the image that consists of these layers."""
        top = self._document(layers[-1])
        kept = {key: value for key, value in top.items() if key in _KEPT}
        diff_ids = [self._digest(each) for each in layers]
        history = [{"created": self._document(each).get("created", _EPOCH)} for each in layers]
        rootfs = {"type": "layers", "diff_ids": diff_ids}
        return {"architecture": "amd64", "os": "linux", **kept, "rootfs": rootfs, "history": history}

    def _document(self, layer: str) -> dict[str, Any]:
        if layer not in self._documents:
            data = read_document(self._members, f"{layer}/json")
            self._budget.take(len(data))
            self._documents[layer] = json.loads(data)
        return self._documents[layer]

    def _digest(self, layer: str) -> str:
        if layer not in self._digests:
            member = self._members.get(f"{layer}/layer.tar")
            if member is None:
                raise ArchiveRefused(f"{layer}/layer.tar is missing")
            hashed = sha256()
            for piece in member.pieces():
                hashed.update(piece)
            self._digests[layer] = f"sha256:{hashed.hexdigest()}"
        return self._digests[layer]


def _read_images(members: dict[str, ArchiveFile]) -> list[_DockerSaveImage]:
    """Read each configuration once, within limits that no honest archive exceeds."""
    configs: dict[str, bytes] = {}
    budget = DocumentBudget()
    count, images = 0, []
    for image in json.loads(read_document(members, DOCKER_MANIFEST)):
        path = _normalize(image["Config"])
        count = _check_count(count + len(image["Layers"]))
        if path not in configs:
            configs[path] = read_document(members, path)
            budget.take(len(configs[path]))
        images.append(_DockerSaveImage.read(image, configs[path]))
    return images


def _check_count(layers: int) -> int:
    if layers > _MAX_LAYERS:
        raise ArchiveRefused("its images have too many layers")
    return layers


@frozen
class _DockerSaveImage:
    """An image in the archive: its configuration, the digest and path of each layer, and its names.

    A layer that another image shares may be a link, which is not among the members.
    """

    config: bytes
    layers: tuple[tuple[Digest, str], ...]
    names: tuple[str, ...]

    @classmethod
    def read(cls, image: dict[str, Any], config: bytes) -> _DockerSaveImage:
        digests = map(Digest.parse, json.loads(config)["rootfs"]["diff_ids"])
        layers = tuple(zip(digests, map(_normalize, image["Layers"]), strict=True))
        return cls(config, layers, tuple(image.get("RepoTags") or ()))


def _describe(
    image: _DockerSaveImage, layers: dict[Digest, ArchiveFile], layout: dict[str, ArchiveFile]
) -> Iterator[dict[str, Any]]:
    """Yield the image's descriptor, once for each of its names, and add its documents to the layout."""
    missing = next((path for digest, path in image.layers if digest not in layers), None)
    if missing is not None:
        raise ArchiveRefused(f"{missing} is missing")
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _add_document(IMAGE_CONFIGS[0], image.config, layout),
        "layers": [_descriptor(_LAYER, digest, layers[digest].size) for digest, _ in image.layers],
    }
    descriptor = _add_document(OCI_MANIFEST, json.dumps(manifest).encode(), layout)
    named = [{**descriptor, "annotations": {IMAGE_NAME: name}} for name in image.names]
    yield from named or [descriptor]


def _add_document(media_type: str, data: bytes, layout: dict[str, ArchiveFile]) -> dict[str, Any]:
    digest = Digest.of(data)
    layout[blob_path(digest)] = GeneratedFile(data)
    return _descriptor(media_type, digest, len(data))


def _descriptor(media_type: str, digest: Digest, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(digest), "size": size}


def _normalize(text: str) -> str:
    return text.removeprefix("./")
