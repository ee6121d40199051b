"""Stored manifests: read, checked for completeness, and fetched once from the upstream for all clients."""

from __future__ import annotations

from collections import OrderedDict

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..body.bodies import BytesBody, NoBody, collect
from ..concurrency.coroutines import SingleFlight, TTLCache
from ..interfaces import Answer, ContentKind, IContentStore, ITagStore
from ..oci.digest import Descriptor, Digest
from ..oci.errors import RegistryError
from ..oci.header_fields import CacheResult, CacheStatus, etag_matches, whole_range
from ..oci.manifest import MANIFEST_LIMIT, ManifestReferences, parse_references
from ..oci.media import EVERYTHING
from ..oci.request import RegistryRequest, Repository, Tag
from ..system.posix import explain_write_error
from .generations import Generations
from .upstream_gateway import UpstreamGateway

_MAX_REFERENCES = 16 * 1024
HEAD_TTL = 60.0
"""Seconds for which the digest that a HEAD reported for a tag counts as confirmed."""
_MOST = 10_000
_log = Logger()


class ReferenceCache:
    """The media types and references of recently read manifests; those of a digest never change.

    A media type takes little room, and most requests need no more, so it is kept for longer.

    :param limit: the number of references that are cached, for all manifests together.
    """

    def __init__(self, limit: int = _MAX_REFERENCES) -> None:
        self._limit = limit
        self._count = 0
        self._references: OrderedDict[Digest, ManifestReferences] = OrderedDict()
        self._media_types: dict[Digest, str] = {}

    def media_type(self, digest: Digest, manifest: bytes) -> str | None:
        """Return the media type of a verified manifest, or None if it has no references."""
        known = self._media_types.get(digest)
        if known is None and (references := self.get(digest, manifest)) is not None:
            if len(self._media_types) >= _MOST:
                self._media_types.clear()
            known = self._media_types[digest] = references.media_type
        return known

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
    """A stored manifest, of which ``ManifestStore.references`` are known or can be parsed."""

    data: bytes
    digest: Digest
    media_type: str


def answer_stored(request: RegistryRequest, stored: StoredManifest, status: CacheStatus) -> Answer:
    """Return the answer with a stored manifest: without it for HEAD, and 304 if the client has it."""
    descriptor = Descriptor(stored.media_type, stored.digest, len(stored.data))
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
            data = await collect(content, MANIFEST_LIMIT)
        except RegistryError:
            return None
        media_type = self._references.media_type(digest, data)
        return StoredManifest(data, digest, media_type) if media_type else None

    def references(self, manifest: StoredManifest) -> ManifestReferences | None:
        return self._references.get(manifest.digest, manifest.data)

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
        references = self.references(manifest)
        if references is None:
            return False
        for digest in references.blobs:
            if not await self._has_blob(place, digest):
                return False
        for digest in references.manifests:
            if digest in missing:
                continue
            child = await self.get(place, digest)
            if child is not None and await self._is_complete(place, child, missing):
                return True
            missing.add(digest)
        return not references.manifests

    async def _has_blob(self, place: Repository, digest: Digest) -> bool:
        stored = await self._contents.open(place, digest, ContentKind.BLOB)
        if stored is not None:
            stored.close()
        return stored is not None


def kind_of(descriptor: Descriptor) -> str:
    """Return the media type without its parameters."""
    return (descriptor.media_type or "").partition(";")[0].strip()


@frozen
class _Report:
    """The digest of a tag in a generation of the repository, and the age that the upstream named for it."""

    digest: Digest
    generation: bytes
    age: float


class HeadCache:
    """Remembers the last digest that was reported for each tag; each entry expires on its own."""

    def __init__(self, clock: IReactorTime) -> None:
        self._reported: TTLCache[tuple[Repository, Tag], _Report] = TTLCache(clock, _MOST)
        self._tags: TTLCache[tuple[Repository, Digest], frozenset[Tag]] = TTLCache(clock, _MOST)

    def put(self, place: Repository, tag: Tag, digest: Digest, generation: bytes, age: float) -> None:
        """Record the digest of a tag.

        :param generation: the repository's, from before the request.
        :param age: see ``Answer.age``.
        """
        self._reported.put((place, tag), _Report(digest, generation, age), HEAD_TTL)
        self._tags.put((place, digest), frozenset({*self.ages(place, digest, generation), tag}), HEAD_TTL)

    def forget(self, place: Repository, tag: Tag) -> None:
        """Forget the tag: its digest is stored elsewhere, or outdated."""
        self._reported.drop((place, tag))

    def ages(self, place: Repository, digest: Digest, generation: bytes) -> dict[Tag, float]:
        """Return the ages of the tags that were reported to name the digest in that generation."""
        ages = {}
        for tag in self._tags.get((place, digest)) or ():
            report = self._reported.get((place, tag))
            if report is not None and (report.digest, report.generation) == (digest, generation):
                ages[tag] = report.age
        return ages


class ManifestFetcher:
    """Requests manifests with the full list of media types, so that the answer serves all clients."""

    def __init__(
        self,
        gateway: UpstreamGateway,
        contents: IContentStore,
        manifests: ManifestStore,
        tags: ITagStore,
        clock: IReactorTime,
        generations: Generations,
    ) -> None:
        self._gateway = gateway
        self._contents = contents
        self._manifests = manifests
        self._tags = tags
        self._generations = generations
        self._heads = HeadCache(clock)
        self._requests: SingleFlight[tuple[RegistryRequest, bytes], Answer] = SingleFlight()

    async def get(
        self, request: RegistryRequest, place: Repository, tag: Tag | None, have_stale: bool = False
    ) -> Answer:
        """Return the upstream's answer to the unconditional request, with its content in memory.

        :param tag: the requested tag; None for a digest.
        :param have_stale: True if the store can answer instead.
        """
        shared = evolve(request, accept=EVERYTHING, if_none_match=None)
        generation = await self._generations.generation(place)
        return await self._requests.get(
            (shared, generation),
            lambda: self._ask(shared, place, generation, tag, have_stale),
        )

    async def confirm(
        self, place: Repository, generation: bytes, tag: Tag, digest: Digest, age: float
    ) -> None:
        """Record that the upstream's tag names a stored manifest.

        :param generation: the repository's, from before the request.
        :param age: seconds since the tag was confirmed.
        """
        self._heads.forget(place, tag)
        if await self._generations.generation(place) == generation:
            await self._tags.put(place, tag, digest, age)
            if await self._generations.generation(place) != generation:
                await self._tags.forget(place, tag)

    async def _ask(
        self,
        shared: RegistryRequest,
        place: Repository,
        generation: bytes,
        tag: Tag | None,
        have_stale: bool,
    ) -> Answer:
        answer = await self._gateway.fetch(shared, have_stale)
        status = CacheStatus(
            CacheResult.MISS,
            immutable=tag is None and (await self._gateway.facts(shared)).is_for_everybody,
        )
        if shared.head and answer.consents:
            await self._record_head(place, generation, tag, answer)
        elif not shared.head:
            data = await collect(answer.body, MANIFEST_LIMIT)
            content = BytesBody(data, evolve(answer.body.descriptor, size=len(data)))
            answer = evolve(answer, body=content)
            if await self._store(place, generation, tag, content, answer.age or 0.0):
                status = evolve(status, result=CacheResult.STORED)
        return evolve(answer, cache=status)

    async def _record_head(
        self, place: Repository, generation: bytes, tag: Tag | None, answer: Answer
    ) -> None:
        """Record the digest that a HEAD reported for a tag; clients request the manifest by it next.

        The tag is stored as soon as that manifest is.
        """
        digest, age = answer.body.descriptor.digest, answer.age or 0.0
        if (
            tag is None
            or digest is None
            or not await self._generations.confirm(place, generation, digest, ContentKind.MANIFEST)
        ):
            return
        if await self._contents.link(place, digest, ContentKind.MANIFEST):
            await self.confirm(place, generation, tag, digest, age)
        else:
            self._heads.put(place, tag, digest, generation, age)

    async def _store(
        self, place: Repository, generation: bytes, tag: Tag | None, content: BytesBody, age: float
    ) -> bool:
        """Store the manifest unless the repository has changed meanwhile; return whether it was stored."""
        digest = content.descriptor.digest
        if digest is None or not await self._generations.confirm(
            place, generation, digest, ContentKind.MANIFEST
        ):
            return False
        if await self._manifests.add(place, content) is None:
            return False
        ages = self._heads.ages(place, digest, generation)
        if tag is not None:
            ages[tag] = age
        for each, tag_age in ages.items():
            await self.confirm(place, generation, each, digest, tag_age)
        return True
