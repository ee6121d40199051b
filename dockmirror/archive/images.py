"""Images as an archive that everybody loads.

It is an OCI image layout, which containerd, podman and skopeo read, and ``docker load`` where it keeps its
images in containerd; and it has the ``manifest.json`` by which every other docker loads what it has saved.

Sources: OCI image specification, image-layout.md and annotations.md; moby, image/spec/spec.md,
"Combined Image JSON + Filesystem Changeset Format"; containerd, images/annotations.go.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from attrs import frozen

from ..oci.digest import Digest
from ..oci.manifest import IMAGE_CONFIGS, ManifestDocument
from ..oci.media import OCI_INDEX
from ..oci.platform import Platform
from .archive_plan import ArchivePlan, ContentSlice, Piece
from .tar import tar_of

LAYOUT, INDEX, SAVED = "oci-layout", "index.json", "manifest.json"
REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"
_USUAL = Platform("linux", "amd64")


@frozen
class PackedImage:
    """An image to be packed, whole.

    :ivar name: in full, such as ``docker.io/library/nginx:1.27``.
    :ivar tag: empty where the name ends with a digest.
    :ivar root: the manifest or index that the name stands for.
    :ivar manifests: the bytes of that and of all manifests below it.
    :ivar blobs: the sizes of all that these need.
    """

    name: str
    tag: str
    root: Digest
    manifests: Mapping[Digest, bytes]
    blobs: Mapping[Digest, int]


def archive_of(images: Sequence[PackedImage]) -> ArchivePlan:
    """One archive of all of them; the same images are always the same bytes."""
    files: dict[str, Piece] = {}
    for image in images:
        files |= {path_of(digest): ContentSlice(digest, size) for digest, size in image.blobs.items()}
    for image in images:
        files |= {path_of(digest): data for digest, data in image.manifests.items()}
    files[LAYOUT] = _json({"imageLayoutVersion": "1.0.0"})
    described = [_described(image) for image in images]
    files[INDEX] = _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": described})
    files[SAVED] = _json(list(_saved(images)))
    return tar_of(files)


def path_of(digest: Digest) -> str:
    """Where a content lies in an archive."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _described(image: PackedImage) -> dict[str, Any]:
    data = image.manifests[image.root]
    manifest = ManifestDocument.parse(data)
    annotations = {IMAGE_NAME: image.name, **({REF_NAME: image.tag} if image.tag else {})}
    return {
        "mediaType": manifest.media_type if manifest else "",
        "digest": str(image.root),
        "size": len(data),
        "annotations": annotations,
    }


def _saved(images: Iterable[PackedImage]) -> Iterator[dict[str, Any]]:
    """What docker loads: of several platforms linux/amd64, or else the first."""
    found: dict[Digest, tuple[ManifestDocument, list[str]]] = {}
    for image in images:
        for digest, manifest in islice(_runnable(image), 1):
            names = found.setdefault(digest, (manifest, []))[1]
            if image.tag and image.name not in names:
                names.append(image.name)
    for manifest, names in found.values():
        config, *layers = [
            path_of(each.digest) for each in (manifest.config, *manifest.layers) if each and each.digest
        ]
        yield {"Config": config, "RepoTags": names or None, "Layers": layers}


def _runnable(image: PackedImage) -> Iterator[tuple[Digest, ManifestDocument]]:
    """The manifests of an image that can be run; each is looked at once, however many indexes refer to it."""
    unseen, seen = [image.root], set()
    while unseen:
        digest = unseen.pop()
        manifest = None if digest in seen else ManifestDocument.parse(image.manifests.get(digest, b""))
        seen.add(digest)
        if manifest is None:
            continue
        if manifest.config and manifest.config.media_type in IMAGE_CONFIGS and not manifest.foreign:
            yield digest, manifest
        usual_first = sorted(manifest.children, key=lambda child: child.platform != _USUAL)
        unseen += [each.descriptor.digest for each in reversed(usual_first) if each.descriptor.digest]


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
