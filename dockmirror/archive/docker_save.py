"""What docker saves before version 25, and podman as docker-archive, as the layout that it could have been.

Such an archive has no manifests: only configurations, and layers that are not compressed.  So the manifest is
written anew, with another digest than the registry's.

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
from .archive_files import Allowance, ArchiveFile, ArchiveRefused, GeneratedFile, document
from .images import IMAGE_NAME, INDEX, LAYOUT, SAVED, path_of

_LAYERS = 100_000
"""How many layers all images may have together."""
_LAYER = "application/vnd.oci.image.layer.v1.tar"


def layout_of(members: dict[str, ArchiveFile]) -> dict[str, ArchiveFile]:
    """An OCI layout of its images.

    :raises Refused: when it is not as docker saves it.
    """
    layout: dict[str, ArchiveFile] = {LAYOUT: GeneratedFile(b"{}")}
    try:
        images = _images(members)
        layers = {
            digest: members[path] for image in images for digest, path in image.layers if path in members
        }
        described = [each for image in images for each in _describe(image, layers, layout)]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, DigestInvalid):
        raise ArchiveRefused(f"{SAVED} is not what docker saves") from None
    layout |= {path_of(digest): member for digest, member in layers.items()}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": described}
    return {**layout, INDEX: GeneratedFile(json.dumps(index).encode())}


def _images(members: dict[str, ArchiveFile]) -> list[_DockerSaveImage]:
    """Read each configuration once, and of everything only so much as can be meant honestly."""
    configs: dict[str, bytes] = {}
    allowance = Allowance()
    count, images = 0, []
    for image in json.loads(document(members, SAVED)):
        path = _path(image["Config"])
        count += len(image["Layers"])
        if count > _LAYERS:
            raise ArchiveRefused("its images have too many layers")
        if path not in configs:
            configs[path] = document(members, path)
            allowance.take(len(configs[path]))
        images.append(_DockerSaveImage.read(image, configs[path]))
    return images


@frozen
class _DockerSaveImage:
    """An image there: its configuration, the digest and the path of each layer, its names.

    A layer that another image has as well may be a link, and is not among the members then.
    """

    config: bytes
    layers: tuple[tuple[Digest, str], ...]
    names: tuple[str, ...]

    @classmethod
    def read(cls, image: dict[str, Any], config: bytes) -> _DockerSaveImage:
        digests = map(Digest.parse, json.loads(config)["rootfs"]["diff_ids"])
        layers = tuple(zip(digests, map(_path, image["Layers"]), strict=True))
        return cls(config, layers, tuple(image.get("RepoTags") or ()))


def _describe(
    image: _DockerSaveImage, layers: dict[Digest, ArchiveFile], layout: dict[str, ArchiveFile]
) -> Iterator[dict[str, Any]]:
    """The image's descriptor, once for each of its names; its documents are added to the layout."""
    missing = next((path for digest, path in image.layers if digest not in layers), None)
    if missing is not None:
        raise ArchiveRefused(f"{missing} is missing")
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _written(IMAGE_CONFIGS[0], image.config, layout),
        "layers": [_described(_LAYER, digest, layers[digest].size) for digest, _ in image.layers],
    }
    described = _written(OCI_MANIFEST, json.dumps(manifest).encode(), layout)
    named = [{**described, "annotations": {IMAGE_NAME: name}} for name in image.names]
    yield from named or [described]


def _written(media_type: str, data: bytes, layout: dict[str, ArchiveFile]) -> dict[str, Any]:
    digest = Digest.of(data)
    layout[path_of(digest)] = GeneratedFile(data)
    return _described(media_type, digest, len(data))


def _described(media_type: str, digest: Digest, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(digest), "size": size}


def _path(text: str) -> str:
    return text.removeprefix("./")
