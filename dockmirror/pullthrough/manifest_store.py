"""The manifests that are held, and whether they are of use without the upstream."""

from __future__ import annotations

from attrs import frozen
from twisted.logger import Logger

from ..body.in_memory import BytesBody, collect
from ..interfaces import ContentKind, IContentStore
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.media import ManifestReferences, parse_references
from ..oci.reference import Repository
from .reference_cache import ReferenceCache
from .responses import whole_range

LIMIT = 4 * 1024 * 1024
"""Bytes; clients take no larger manifest either."""

_log = Logger()


@frozen
class StoredManifest:
    """A manifest that is held, and what it needs to be of use."""

    data: bytes
    digest: Digest
    parts: ManifestReferences


class ManifestStore:
    """Manifests in the store, byte for byte; their media type is the one that they say themselves."""

    def __init__(self, contents: IContentStore) -> None:
        self._contents = contents
        self._parts = ReferenceCache()

    async def get(self, place: Repository, digest: Digest) -> StoredManifest | None:
        """The manifest, where the repository is linked to it, it can be read, and it is one."""
        opened = await self._contents.open(place, digest, ContentKind.MANIFEST)
        if opened is None:
            return None
        content = opened.body(Descriptor(None, digest, opened.size), whole_range(opened.size))
        try:
            data = await collect(content, LIMIT)
        except RegistryError:
            return None
        parts = self._parts.of(digest, data)
        return StoredManifest(data, digest, parts) if parts else None

    async def keep(self, place: Repository, content: BytesBody) -> Digest | None:
        """The digest of a manifest, where it could be kept.

        Not kept is one that says of itself another kind than the upstream does, and one whose digest is
        not that of all its bytes (schema 1): what is kept under a digest is served to others by it.
        """
        digest = content.descriptor.digest
        if digest is None or not digest.matches(content.data):
            return None
        parts = parse_references(content.data)
        if parts is None or parts.media_type != kind_of(content.descriptor):
            return None
        try:
            await self._contents.add(place, digest, ContentKind.MANIFEST, content.data)
        except OSError as error:
            _log.error("the store takes nothing: {error}", error=str(error))
            return None
        return digest

    async def is_complete(self, place: Repository, held: StoredManifest) -> bool:
        """Return whether all content that a client requests after this manifest is stored.

        Of an index that is one of its manifests at least: nobody pulls all platforms.
        """
        return await self._is_whole(place, held, set())

    async def _is_whole(self, place: Repository, held: StoredManifest, lacking: set[Digest]) -> bool:
        """:param lacking: manifests that were found to be not; many ways may lead to one."""
        for digest in held.parts.blobs:
            if not await self._has(place, digest):
                return False
        for digest in held.parts.manifests:
            if digest in lacking:
                continue
            child = await self.get(place, digest)
            if child is not None and await self._is_whole(place, child, lacking):
                return True
            lacking.add(digest)
        return not held.parts.manifests

    async def _has(self, place: Repository, digest: Digest) -> bool:
        opened = await self._contents.open(place, digest, ContentKind.BLOB)
        if opened is not None:
            opened.close()
        return opened is not None


def kind_of(descriptor: Descriptor) -> str:
    """The media type without its parameters."""
    return (descriptor.media_type or "").partition(";")[0].strip()
