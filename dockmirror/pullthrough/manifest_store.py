"""Stored manifests, and whether an image is stored completely."""

from __future__ import annotations

from collections import OrderedDict

from attrs import frozen
from twisted.logger import Logger

from ..body.in_memory import BytesBody, NoBody, collect
from ..interfaces import Answer, ContentKind, IContentStore
from ..oci.digest import Descriptor, Digest
from ..oci.errors import RegistryError
from ..oci.header_fields import CacheStatus, etag_matches, whole_range
from ..oci.manifest import ManifestReferences, parse_references
from ..oci.request import RegistryRequest, Repository
from ..system.posix import explain_write_error

_MAX_REFERENCES = 16 * 1024
LIMIT = 4 * 1024 * 1024
"""Bytes; clients take no larger manifest either."""
_log = Logger()


class ReferenceCache:
    """The references of recently read manifests; those of a digest never change.

    :param limit: the number of references that are cached, for all manifests together.
    """

    def __init__(self, limit: int = _MAX_REFERENCES) -> None:
        self._limit = limit
        self._count = 0
        self._references: OrderedDict[Digest, ManifestReferences] = OrderedDict()

    def get(self, digest: Digest, manifest: bytes) -> ManifestReferences | None:
        """Return ``parse_references`` of a verified manifest."""
        references = self._references.get(digest)
        if references is not None:
            self._references.move_to_end(digest)
            return references
        references = parse_references(manifest)
        if references is not None:
            self._remember(digest, references)
        return references

    def _remember(self, digest: Digest, references: ManifestReferences) -> None:
        self._references[digest] = references
        self._count += _count(references)
        while self._count > self._limit:
            _, oldest = self._references.popitem(last=False)
            self._count -= _count(oldest)


def _count(references: ManifestReferences) -> int:
    return 1 + len(references.blobs) + len(references.manifests)


@frozen
class StoredManifest:
    """A stored manifest and its references."""

    data: bytes
    digest: Digest
    references: ManifestReferences


def answer_stored(request: RegistryRequest, stored: StoredManifest, status: CacheStatus) -> Answer:
    """Return the answer with a stored manifest: without it for HEAD, and 304 if the client has it."""
    descriptor = Descriptor(stored.references.media_type, stored.digest, len(stored.data))
    if etag_matches(request.if_none_match, stored.digest):
        return Answer(NoBody(descriptor), 304, cache=status)
    return Answer(NoBody(descriptor) if request.head else BytesBody(stored.data, descriptor), cache=status)


class ManifestStore:
    """Manifests in the store, byte for byte; their media type is the one that they state."""

    def __init__(self, contents: IContentStore) -> None:
        self._contents = contents
        self._references = ReferenceCache()

    async def get(self, place: Repository, digest: Digest) -> StoredManifest | None:
        """Return the manifest if it is linked to the repository, readable and valid, or None."""
        stored = await self._contents.open(place, digest, ContentKind.MANIFEST)
        if stored is None:
            return None
        content = stored.body(Descriptor(None, digest, stored.size), whole_range(stored.size))
        try:
            data = await collect(content, LIMIT)
        except RegistryError:
            return None
        references = self._references.get(digest, data)
        return StoredManifest(data, digest, references) if references else None

    async def add(self, place: Repository, content: BytesBody) -> Digest | None:
        """Store a manifest, and return its digest, or None if it was not stored.

        A manifest is not stored if it states another media type than the upstream does, or if its digest is
        not that of all its bytes (schema 1): other clients will be served by that digest.  Nor is one that
        the store does not accept, since it was deleted or recalled.
        """
        digest = content.descriptor.digest
        if digest is None or not digest.matches(content.data):
            return None
        references = parse_references(content.data)
        if references is None or references.media_type != kind_of(content.descriptor):
            return None
        try:
            added = await self._contents.add(place, digest, ContentKind.MANIFEST, content.data)
        except OSError as error:
            _log.error("the cache keeps no new manifests: {reason}", reason=explain_write_error(error))
            return None
        return digest if added else None

    async def is_complete(self, place: Repository, manifest: StoredManifest) -> bool:
        """Return whether all content that a client requests after this manifest is stored.

        For an index, one of its manifests is enough: a client pulls one platform.
        """
        return await self._is_complete(place, manifest, set())

    async def _is_complete(self, place: Repository, manifest: StoredManifest, missing: set[Digest]) -> bool:
        """:param missing: manifests found incomplete so far; several indexes may contain the same one."""
        for digest in manifest.references.blobs:
            if not await self._has_blob(place, digest):
                return False
        for digest in manifest.references.manifests:
            if digest in missing:
                continue
            child = await self.get(place, digest)
            if child is not None and await self._is_complete(place, child, missing):
                return True
            missing.add(digest)
        return not manifest.references.manifests

    async def _has_blob(self, place: Repository, digest: Digest) -> bool:
        stored = await self._contents.open(place, digest, ContentKind.BLOB)
        if stored is not None:
            stored.close()
        return stored is not None


def kind_of(descriptor: Descriptor) -> str:
    """Return the media type without its parameters."""
    return (descriptor.media_type or "").partition(";")[0].strip()
