"""Pack images into an archive that every client loads.

The archive is an OCI image layout, which containerd and podman and skopeo read, and ``docker load`` where
docker keeps images in containerd.  It also has the ``manifest.json`` that every other docker loads.

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
from ..oci.manifest import IMAGE_CONFIGS, ManifestDocument, Platform
from ..oci.media import OCI_INDEX
from .archive_plan import ArchivePlan, ContentSlice, Piece, plan_tar

LAYOUT, INDEX, DOCKER_MANIFEST = "oci-layout", "index.json", "manifest.json"
REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"
_DEFAULT_PLATFORM = Platform("linux", "amd64")


@frozen
class PackedImage:
    """A complete image to pack.

    :ivar name: the full name, such as ``docker.io/library/nginx:1.27``.
    :ivar tag: empty when the name ends with a digest.
    :ivar root: the manifest or index that the name refers to.
    :ivar manifests: the bytes of the root and of all manifests below it.
    :ivar blobs: the sizes of all blobs that the manifests refer to.
    """

    name: str
    tag: str
    root: Digest
    manifests: Mapping[Digest, bytes]
    blobs: Mapping[Digest, int]


def plan_archive(images: Sequence[PackedImage]) -> ArchivePlan:
    """Plan one archive of all images; the same images always give the same bytes."""
    files: dict[str, Piece] = {}
    for image in images:
        files |= {blob_path(digest): ContentSlice(digest, size) for digest, size in image.blobs.items()}
    for image in images:
        files |= {blob_path(digest): data for digest, data in image.manifests.items()}
    files[LAYOUT] = _json({"imageLayoutVersion": "1.0.0"})
    descriptors = [_descriptor(image) for image in images]
    files[INDEX] = _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors})
    files[DOCKER_MANIFEST] = _json(list(_docker_save_entries(images)))
    return plan_tar(files)


def blob_path(digest: Digest) -> str:
    """Return the path of a content in an archive."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _descriptor(image: PackedImage) -> dict[str, Any]:
    data = image.manifests[image.root]
    manifest = ManifestDocument.parse(data)
    annotations = {IMAGE_NAME: image.name, **({REF_NAME: image.tag} if image.tag else {})}
    return {
        "mediaType": manifest.media_type if manifest else "",
        "digest": str(image.root),
        "size": len(data),
        "annotations": annotations,
    }


def _docker_save_entries(images: Iterable[PackedImage]) -> Iterator[dict[str, Any]]:
    """Yield the entries of docker's manifest.json: of each image linux/amd64, or else the first platform."""
    entries: dict[Digest, tuple[ManifestDocument, list[str]]] = {}
    for image in images:
        for digest, manifest in islice(_runnable(image), 1):
            names = entries.setdefault(digest, (manifest, []))[1]
            if image.tag and image.name not in names:
                names.append(image.name)
    for manifest, names in entries.values():
        config, *layers = [
            blob_path(each.digest) for each in (manifest.config, *manifest.layers) if each and each.digest
        ]
        yield {"Config": config, "RepoTags": names or None, "Layers": layers}


def _runnable(image: PackedImage) -> Iterator[tuple[Digest, ManifestDocument]]:
    """Yield an image's runnable manifests; each is read once, however many indexes refer to it."""
    unseen, seen = [image.root], set()
    while unseen:
        digest = unseen.pop()
        manifest = None if digest in seen else ManifestDocument.parse(image.manifests.get(digest, b""))
        seen.add(digest)
        if manifest is None:
            continue
        if manifest.config and manifest.config.media_type in IMAGE_CONFIGS and not manifest.foreign:
            yield digest, manifest
        default_first = sorted(manifest.children, key=lambda child: child.platform != _DEFAULT_PLATFORM)
        unseen += [each.descriptor.digest for each in reversed(default_first) if each.descriptor.digest]


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
