"""Manifests requested from the upstream: one request for all clients, and the manifest is stored."""

from __future__ import annotations

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime

from ..body.in_memory import BytesBody, collect
from ..concurrency.coroutines import SingleFlight, TTLCache
from ..interfaces import Answer, ContentKind, IContentStore, ITagStore
from ..oci.digest import Digest
from ..oci.header_fields import CacheResult, CacheStatus
from ..oci.media import EVERYTHING
from ..oci.request import RegistryRequest, Repository, Tag
from .generations import Generations
from .manifest_store import LIMIT, ManifestStore
from .upstream_gateway import UpstreamGateway

HEAD_TTL = 60.0
"""Seconds for which the digest that a HEAD reported for a tag counts as confirmed."""
_MOST = 10_000


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
            data = await collect(answer.body, LIMIT)
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
