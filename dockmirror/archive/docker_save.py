"""Convert archives of docker before version 25, and podman's docker-archive, to an OCI image layout.

Such an archive has no manifests: only configurations and uncompressed layers.  The conversion generates the
manifest, so its digest differs from the registry's.

Source: moby, image/spec/spec.md, "Combined Image JSON + Filesystem Changeset Format".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from attrs import frozen

from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from ..oci.manifest import IMAGE_CONFIGS
from ..oci.media import OCI_INDEX, OCI_MANIFEST
from .archive_files import ArchiveFile, ArchiveRefused, DocumentBudget, GeneratedFile, read_document
from .images import DOCKER_MANIFEST, IMAGE_NAME, INDEX, LAYOUT, blob_path

_MAX_LAYERS = 100_000
"""The largest number of layers in all images together."""
_LAYER = "application/vnd.oci.image.layer.v1.tar"


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


def _read_images(members: dict[str, ArchiveFile]) -> list[_DockerSaveImage]:
    """Read each configuration once, within limits that no honest archive exceeds."""
    configs: dict[str, bytes] = {}
    budget = DocumentBudget()
    count, images = 0, []
    for image in json.loads(read_document(members, DOCKER_MANIFEST)):
        path = _normalize(image["Config"])
        count += len(image["Layers"])
        if count > _MAX_LAYERS:
            raise ArchiveRefused("its images have too many layers")
        if path not in configs:
            configs[path] = read_document(members, path)
            budget.take(len(configs[path]))
        images.append(_DockerSaveImage.read(image, configs[path]))
    return images


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
