"""A registry with an image for two platforms, which holds what was read."""

from __future__ import annotations

import json
from typing import Any

from zope.interface import implementer

from dockmirror.body.bodies import BytesBody, NoBody
from dockmirror.interfaces import Answer, IBody, IRegistry
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import BlobUnknown, ManifestUnknown
from dockmirror.oci.header_fields import CacheResult, CacheStatus
from dockmirror.oci.manifest import Platform
from dockmirror.oci.media import OCI_INDEX, OCI_MANIFEST
from dockmirror.oci.request import Blob, Reference, RegistryRequest, Repository, Tag
from dockmirror.oci.request import Manifest as Asked

PLACE = Repository("docker.io/library/nginx")
LATEST = Tag("latest")
AMD = Platform("linux", "amd64")


def described(data: bytes, media_type: str = "", **more: Any) -> dict[str, Any]:
    """As a manifest refers to it."""
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data), **more}


def image(config: bytes, *layers: bytes) -> bytes:
    """A manifest."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described(config),
            "layers": [described(layer) for layer in layers],
        }
    ).encode()


def index(**children: bytes) -> bytes:
    """An index; ``unknown`` is an attestation."""
    manifests = []
    for name, child in children.items():
        system, architecture = ("unknown", name) if name == "unknown" else ("linux", name)
        platform = {"os": system, "architecture": architecture}
        if name == "arm":
            platform["variant"] = "v7"
        manifests.append(described(child, OCI_MANIFEST, platform=platform))
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode()


FOR_AMD, FOR_ARM, ATTESTED = image(b"amd", b"base", b"a"), image(b"arm", b"base"), image(b"{}", b"attested")
SIGNATURE = image(b"{}", b"signature")
UNUSUAL_PLATFORMS = [
    {"os": "", "architecture": "amd64"},
    {"os": "linux", "architecture": ""},
    {"os": "linux", "architecture": "", "variant": "amd64"},
    {"os": "linux", "architecture": "arm64", "variant": "v8 "},
]
"""What an index may state, and no setting or lock file."""


@implementer(IRegistry)
class Shelf:
    """A registry in front of what it has: held from when it was read whole.

    :ivar asked: what was asked for, HEAD or GET.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.contents: dict[str, bytes] = {}
        self.feeds: dict[str, IBody] = {}
        self.held: set[str] = set()
        everything = index(amd64=FOR_AMD, arm=FOR_ARM, unknown=ATTESTED)
        for data in (FOR_AMD, FOR_ARM, ATTESTED, SIGNATURE, everything):
            self.put(data)
        for data in (b"amd", b"arm", b"{}", b"base", b"a", b"attested", b"signature"):
            self.contents[str(Blob(PLACE, Digest.of(data)))] = data

    def put(self, data: bytes, reference: Reference = LATEST) -> None:
        """A manifest by its digest, and by a name that the next one takes."""
        for each in (reference, Digest.of(data)):
            self.contents[str(Asked(PLACE, each))] = data

    def lists(self, subject: bytes, target: str) -> None:
        """Serve a list of referrers of a manifest at this target."""
        self.contents[target] = json.dumps(
            {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [described(SIGNATURE, OCI_MANIFEST)]}
        ).encode()

    async def fetch(self, request: RegistryRequest) -> Answer:
        path = str(request.target)
        self.asked.append(f"{'HEAD' if request.head else 'GET'} {path}")
        if path not in self.contents:
            raise BlobUnknown if isinstance(request.target, Blob) else ManifestUnknown
        data = self.contents[path]
        descriptor = Descriptor(None, Digest.of(data), len(data))
        if request.head:
            result = CacheResult.HIT if path in self.held else CacheResult.MISS
            return Answer(NoBody(descriptor), cache=CacheStatus(result))
        self.held |= {path, str(Asked(PLACE, Digest.of(data)))}  # a tag's manifest by its digest, too
        return Answer(self.feeds.get(path) or BytesBody(data, descriptor))

    def fetched(self) -> list[str]:
        """The blobs that were read, by their bytes."""
        asked = (each.split() for each in self.asked)
        blobs = [path for method, path in asked if method == "GET" and "/blobs/" in path]
        return sorted(self.contents[path].decode() for path in blobs)
