"""Images as registries have them."""

from __future__ import annotations

import json

from dockmirror.oci.digest import Digest
from dockmirror.oci.media import OCI_INDEX, OCI_MANIFEST

from .origin import Shelf


def described(data: bytes) -> dict[str, object]:
    return {"mediaType": "a/b", "digest": str(Digest.of(data)), "size": len(data)}


def image(*layers: bytes) -> bytes:
    """Return an OCI manifest; its configuration is the first blob."""
    fields = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described(layers[0]),
        "layers": [described(layer) for layer in layers[1:]],
    }
    return json.dumps(fields).encode()


def index(*manifests: bytes) -> bytes:
    listed = [described(manifest) for manifest in manifests]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}).encode()


def put(shelf: Shelf, manifest: bytes, media_type: str = OCI_MANIFEST, tag: str | None = None) -> Digest:
    """Add a manifest to a repository."""
    digest = Digest.of(manifest)
    shelf.manifests[digest] = media_type, manifest
    if tag is not None:
        shelf.tags[tag] = digest
    return digest


def publish(shelf: Shelf, *layers: bytes, tag: str = "latest") -> bytes:
    """Add an image to a repository, and return its manifest."""
    shelf.blobs.update({Digest.of(layer): layer for layer in layers})
    manifest = image(*layers)
    put(shelf, manifest, tag=tag)
    return manifest
