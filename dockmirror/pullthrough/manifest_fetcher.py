"""Manifests on their way from the upstream: asked for once for all who want them, and kept."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.interfaces import IReactorTime

from ..body.in_memory import BytesBody, collect
from ..concurrency.caching import SingleFlight
from ..interfaces import Answer, ContentKind, IContentStore, ITagStore
from ..oci.cache_status import CacheResult, CacheStatus
from ..oci.digest import Digest
from ..oci.media import EVERYTHING
from ..oci.reference import Repository, Tag
from ..oci.request import RegistryRequest
from .generations import ReadOnlyGenerations
from .head_cache import HeadCache
from .manifest_store import LIMIT, ManifestStore
from .upstream_gateway import UpstreamGateway


class ManifestFetcher:
    """Asks with the full list of media types, so that what comes serves everybody."""

    def __init__(
        self,
        gateway: UpstreamGateway,
        contents: IContentStore,
        kept: ManifestStore,
        tags: ITagStore,
        clock: IReactorTime,
        changes: ReadOnlyGenerations,
    ) -> None:
        self._gateway = gateway
        self._contents = contents
        self._kept = kept
        self._tags = tags
        self._changes = changes
        self._named = HeadCache(clock)
        self._joined: SingleFlight[tuple[RegistryRequest, bytes], Answer] = SingleFlight()

    async def get(
        self, request: RegistryRequest, place: Repository, tag: Tag | None, have_stale: bool = False
    ) -> Answer:
        """The upstream's answer, unconditional; of its content, bytes in memory, many may be given a copy.

        :param tag: by which it is asked for.
        :param have_stale: whether the store can answer instead.
        """
        asked = evolve(request, accept=EVERYTHING, if_none_match=None)
        mark = await self._changes.generation(place)
        return await self._joined.get((asked, mark), lambda: self._ask(asked, place, mark, tag, have_stale))

    async def confirm(self, place: Repository, mark: bytes, tag: Tag, digest: Digest) -> None:
        """The upstream has said that the tag names this, which is held.

        :param mark: the repository's, from before that was asked.
        """
        self._named.forget(place, tag)
        if await self._changes.generation(place) == mark:
            await self._tags.put(place, tag, digest)
            if await self._changes.generation(place) != mark:
                await self._tags.forget(place, tag)

    async def _ask(
        self, asked: RegistryRequest, place: Repository, mark: bytes, tag: Tag | None, have_stale: bool
    ) -> Answer:
        answer = await self._gateway.ask(asked, have_stale)
        told = CacheStatus(
            CacheResult.MISS, immutable=tag is None and (await self._gateway.facts(asked)).is_for_everybody
        )
        if asked.head and answer.consents:
            await self._name(place, mark, tag, answer.body.descriptor.digest)
        elif not asked.head:
            data = await collect(answer.body, LIMIT)
            content = BytesBody(data, evolve(answer.body.descriptor, size=len(data)))
            answer = evolve(answer, body=content)
            if await self._keep(place, mark, tag, content):
                told = evolve(told, result=CacheResult.STORED)
        return evolve(answer, cache=told)

    async def _name(self, place: Repository, mark: bytes, tag: Tag | None, digest: Digest | None) -> None:
        """A HEAD told what the tag names: clients ask for that by its digest next.

        The tag is noted when that manifest is held.
        """
        if (
            tag is None
            or digest is None
            or not await self._changes.given(place, mark, digest, ContentKind.MANIFEST)
        ):
            return
        if await self._contents.link(place, digest, ContentKind.MANIFEST):
            await self.confirm(place, mark, tag, digest)
        else:
            self._named.note(place, tag, digest, mark)

    async def _keep(self, place: Repository, mark: bytes, tag: Tag | None, content: BytesBody) -> bool:
        """Store the manifest unless the repository has changed meanwhile; return whether it was stored."""
        digest = content.descriptor.digest
        if digest is None or not await self._changes.given(place, mark, digest, ContentKind.MANIFEST):
            return False
        if await self._kept.keep(place, content) is None:
            return False
        named = self._named.tags(place, digest, mark)
        for each in named if tag is None else named | {tag}:
            await self.confirm(place, mark, each, digest)
        return True
