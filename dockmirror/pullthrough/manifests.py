"""Manifests: by digest for good, by tag for as long as the tag is known to name them."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..body.in_memory import BytesBody, NoBody
from ..concurrency.caching import SingleFlight
from ..interfaces import Answer, ContentKind, IContentStore, ITagStore
from ..oci.cache_status import CacheResult, CacheStatus
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.etag import etag_matches, format_etag
from ..oci.media import EVERYTHING, accepts
from ..oci.reference import Repository, Tag
from ..oci.request import InRepository, Manifest, RegistryRequest
from .authorization import Decision, Facts, authorize
from .error_tolerant_store import ErrorTolerantContentStore, ErrorTolerantTagStore
from .generations import ReadOnlyGenerations
from .manifest_fetcher import ManifestFetcher
from .manifest_store import ManifestStore, StoredManifest, kind_of
from .responses import STALE
from .upstream_gateway import UpstreamGateway

_log = Logger()


@frozen
class _TaggedManifest:
    """A manifest that is held under a tag; the age is negative where the clock was set back.

    :ivar in_doubt: whether a write of which nobody knows what has come was put since it was confirmed.
    """

    place: Repository
    tag: Tag
    held: StoredManifest
    age: float
    in_doubt: bool


class ManifestCache:
    """The manifests of one registry.

    :param changes: of this registry, through the mirror.
    :param tag_ttl: tells for how many seconds a tag is believed without asking, where it is public.
    """

    def __init__(
        self,
        changes: ReadOnlyGenerations,
        gateway: UpstreamGateway,
        contents: IContentStore,
        tags: ITagStore,
        clock: IReactorTime,
        tag_ttl: Callable[[InRepository], float],
    ) -> None:
        self._changes = changes
        self._gateway = gateway
        self._contents: IContentStore = ErrorTolerantContentStore(contents)
        self._tags: ITagStore = ErrorTolerantTagStore(tags)
        self._kept = ManifestStore(self._contents)
        self._clock = clock
        self._tag_ttl = tag_ttl
        self._heads: SingleFlight[tuple[RegistryRequest, bytes], Answer] = SingleFlight()
        self._fetched = ManifestFetcher(gateway, self._contents, self._kept, self._tags, clock, changes)

    async def fetch(self, request: RegistryRequest, target: Manifest) -> Answer:
        """See ``IRegistry``."""
        place = self._changes.place(target.repository)
        if isinstance(target.reference, Tag):
            return await self._by_tag(request, place, target.reference, self._tag_ttl(target))
        return await self._by_digest(request, place, target.reference)

    async def _by_digest(self, request: RegistryRequest, place: Repository, digest: Digest) -> Answer:
        in_doubt = await self._changes.deletion(place, digest, ContentKind.MANIFEST) is not None
        facts, held = evolve(await self._gateway.facts(request), in_doubt=in_doubt), None
        allowed = authorize(facts) is Decision.ALLOW
        if allowed:
            held = await self._kept.get(place, digest)
        if held is None and await self._contents.holds(digest):
            held = await self._consulted(request, evolve(facts, held=not allowed), place, digest)
        if held is None:
            return await self._new(request, place, None)
        if not accepts(request.accept, held.parts.media_type):
            return await self._passed(request)
        await self._check_whole(request, place, held)
        return await self._answer(request, held, CacheStatus(immutable=True))

    async def _check_whole(self, request: RegistryRequest, place: Repository, held: StoredManifest) -> None:
        """Lets clients move on who would bind to this mirror and fail.

        :raises RegistryError: why the upstream rests, while what it takes besides is not held.
        """
        rests = self._gateway.rests(request)
        if rests is not None and not await self._kept.is_complete(place, held):
            raise rests

    async def _consulted(
        self, request: RegistryRequest, facts: Facts, place: Repository, digest: Digest
    ) -> StoredManifest | None:
        """A manifest that is held somewhere, if the upstream gives it to this client from this repository."""
        mark = await self._changes.generation(place)
        try:
            decision = await self._gateway.consult(request, facts)
        except RegistryError as error:
            if facts.in_doubt and await self._gateway.is_known_gone(request, error):
                await self._contents.unlink(place, digest, ContentKind.MANIFEST)
            raise
        if decision is Decision.DENY:
            return None
        if decision is Decision.ALLOW and await self._changes.given(
            place, mark, digest, ContentKind.MANIFEST
        ):
            await self._contents.link(place, digest, ContentKind.MANIFEST)
        return await self._kept.get(place, digest)

    async def _by_tag(self, request: RegistryRequest, place: Repository, tag: Tag, ttl: float) -> Answer:
        tagged = await self._tagged(place, tag)
        if tagged is None:
            return await self._new(request, place, tag)
        if not accepts(request.accept, tagged.held.parts.media_type):
            return await self._passed(request)
        facts = await self._gateway.facts(request, tagged.held.digest)
        facts = evolve(facts, in_doubt=tagged.in_doubt, fresh=0 <= tagged.age < ttl)
        if authorize(facts) is Decision.ALLOW:
            await self._check_whole(request, place, tagged.held)
            return await self._answer(request, tagged.held, CacheStatus(age=tagged.age))
        try:
            current = await self._current(request, tagged, facts)
        except RegistryError as error:
            return await self._stale(request, tagged, error)
        if isinstance(current, Answer):
            return await self._given(request, current)
        if not accepts(request.accept, current.parts.media_type):
            return await self._passed(request)
        return await self._answer(request, current, CacheStatus(CacheResult.CONFIRMED, age=0.0))

    async def _tagged(self, place: Repository, tag: Tag) -> _TaggedManifest | None:
        known = await self._tags.get(place, tag)
        held = await self._kept.get(place, known.digest) if known else None
        if known is None or held is None:
            return None
        in_doubt = known.confirmed <= await self._changes.doubted(place)
        return _TaggedManifest(place, tag, held, self._clock.seconds() - known.confirmed, in_doubt)

    async def _current(
        self, request: RegistryRequest, tagged: _TaggedManifest, facts: Facts
    ) -> StoredManifest | Answer:
        """Return the manifest that the tag names now, held here or fetched.

        A HEAD tells, which Docker Hub does not count as a pull; the same one is asked once at a time.  One
        that is not held is fetched for a client's HEAD, too: it would ask for it by its digest next, and be
        refused by an upstream that has reached its limit, while what is held could have been served.
        """
        asked = evolve(request, head=True, accept=EVERYTHING, if_none_match=format_etag(tagged.held.digest))
        have_stale = await self._have_stale(tagged, facts)
        mark = await self._changes.generation(tagged.place)
        told = await self._heads.get((asked, mark), lambda: self._gateway.ask(asked, have_stale))
        digest = tagged.held.digest if told.status == 304 else told.body.descriptor.digest
        held = await self._kept.get(tagged.place, digest) if digest and told.consents else None
        if held is None:
            return await self._fetched.get(evolve(request, head=False), tagged.place, tagged.tag, have_stale)
        await self._fetched.confirm(tagged.place, mark, tagged.tag, held.digest)
        return held

    async def _have_stale(self, tagged: _TaggedManifest, facts: Facts) -> bool:
        """Return whether what is held may be given, and is of use, when the upstream does not say."""
        is_of_use = facts.have_stale and not await self._too_old(tagged)
        return is_of_use and await self._kept.is_complete(tagged.place, tagged.held)

    async def _stale(self, request: RegistryRequest, tagged: _TaggedManifest, error: RegistryError) -> Answer:
        """Serve the stored manifest if the upstream could not answer; else raise its refusal.

        A 404 forgets the tag only for those who may have it: strangers cannot purge.
        """
        facts = await self._gateway.facts(request, tagged.held.digest)
        facts = evolve(facts, expired=await self._too_old(tagged))
        if not await self._gateway.is_stale_allowed(request, facts, error):
            if error.status == 404 and facts.is_authorized:
                await self._tags.forget(tagged.place, tagged.tag)
            raise error
        if not await self._kept.is_complete(tagged.place, tagged.held):
            raise error
        _log.warn("{target} is served stale: {error}", target=str(request.target), error=str(error))
        told = CacheStatus(CacheResult.STALE, tagged.age, str(error))
        return await self._answer(request, tagged.held, told)

    async def _too_old(self, tagged: _TaggedManifest) -> bool:
        """Nothing that an operator has imported is: it may never have had an upstream."""
        if tagged.age < STALE:
            return False
        return not await self._gateway.public.imported(Repository(tagged.place.rest), tagged.held.digest)

    async def _new(self, request: RegistryRequest, place: Repository, tag: Tag | None) -> Answer:
        """The upstream's, asked for so that it serves others, too."""
        return await self._given(request, await self._fetched.get(request, place, tag))

    async def _given(self, request: RegistryRequest, answer: Answer) -> Answer:
        """Return the answer that all clients share, unless this client does not accept its type."""
        descriptor = answer.body.descriptor
        if not accepts(request.accept, kind_of(descriptor)):
            return await self._passed(request)
        if etag_matches(request.if_none_match, descriptor.digest):
            return evolve(answer, status=304, body=NoBody(descriptor))
        return evolve(answer, body=NoBody(descriptor)) if request.head else answer

    async def _passed(self, request: RegistryRequest) -> Answer:
        """Ask the upstream for a client that does not accept what the others get."""
        answer = await self._gateway.ask(request)
        return evolve(answer, cache=CacheStatus(CacheResult.MISS))

    async def _answer(self, request: RegistryRequest, held: StoredManifest, told: CacheStatus) -> Answer:
        if told.immutable and not (await self._gateway.facts(request)).is_for_everybody:
            told = evolve(told, immutable=False)
        descriptor = Descriptor(held.parts.media_type, held.digest, len(held.data))
        if etag_matches(request.if_none_match, held.digest):
            return Answer(NoBody(descriptor), 304, cache=told)
        content = NoBody(descriptor) if request.head else BytesBody(held.data, descriptor)
        return Answer(content, cache=told)
