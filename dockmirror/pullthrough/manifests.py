"""Manifests: by digest from the store, by tag while the tag is fresh."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..body.bodies import NoBody
from ..concurrency.coroutines import SingleFlight
from ..interfaces import Answer, ContentKind, IContentStore, ITagStore
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.header_fields import CacheResult, CacheStatus, etag_matches, format_etag
from ..oci.media import EVERYTHING, accepts
from ..oci.request import InRepository, Manifest, RegistryRequest, Repository, Tag
from .authorization import MAX_STALE, Decision, Facts, authorize
from .error_tolerant_store import ErrorTolerantContentStore, ErrorTolerantTagStore
from .generations import Generations
from .manifest_store import ManifestFetcher, ManifestStore, StoredManifest, answer_stored, kind_of
from .upstream_gateway import UpstreamGateway

_log = Logger()


@frozen
class _TaggedManifest:
    """A stored manifest and its tag; the age is negative if the clock was set back.

    :ivar in_doubt: True if a write with an unknown outcome came after the tag was confirmed.
    """

    place: Repository
    tag: Tag
    stored: StoredManifest
    age: float
    in_doubt: bool


@frozen
class TagLifetime:
    """The seconds for which a tag of a public repository is served without waiting for the upstream.

    :ivar ttl: returns the seconds for which a tag is fresh.
    :ivar while_revalidate: seconds after those, for which it is served while somebody asks the upstream.
    """

    ttl: Callable[[InRepository], float]
    while_revalidate: float = 0.0


class ManifestCache:
    """The manifests of one registry."""

    def __init__(
        self,
        generations: Generations,
        gateway: UpstreamGateway,
        contents: IContentStore,
        tags: ITagStore,
        clock: IReactorTime,
        lifetime: TagLifetime,
    ) -> None:
        self._generations = generations
        self._gateway = gateway
        self._contents: IContentStore = ErrorTolerantContentStore(contents)
        self._tags: ITagStore = ErrorTolerantTagStore(tags)
        self._manifests = ManifestStore(self._contents)
        self._clock = clock
        self._lifetime = lifetime
        self._heads: SingleFlight[tuple[RegistryRequest, bytes], Answer] = SingleFlight()
        self._fetcher = ManifestFetcher(
            gateway, self._contents, self._manifests, self._tags, clock, generations
        )

    async def fetch(self, request: RegistryRequest, target: Manifest) -> Answer:
        place = self._generations.store_name(target.repository)
        if isinstance(target.reference, Tag):
            return await self._get_by_tag(request, place, target.reference, self._lifetime.ttl(target))
        return await self._get_by_digest(request, place, target.reference)

    async def _get_by_digest(self, request: RegistryRequest, place: Repository, digest: Digest) -> Answer:
        in_doubt = await self._generations.tombstone(place, digest, ContentKind.MANIFEST) is not None
        facts, stored = await self._gateway.facts(request), None
        if in_doubt:
            facts = evolve(facts, in_doubt=True)
        allowed = authorize(facts) is Decision.ALLOW
        if allowed:
            stored = await self._manifests.get(place, digest)
        if stored is None and await self._contents.holds(digest):
            stored = await self._consult(request, evolve(facts, held=not allowed), place, digest)
            facts = await self._gateway.facts(request)
        if stored is None:
            return await self._fetch_upstream(request, place, None)
        if not accepts(request.accept, stored.media_type):
            return await self._pass_through(request)
        await self._check_complete(request, place, stored)
        return answer_stored(request, stored, CacheStatus(immutable=facts.is_for_everybody))

    async def _check_complete(
        self, request: RegistryRequest, place: Repository, stored: StoredManifest
    ) -> None:
        """Check that the whole image can be served, so that clients turn to another mirror if not.

        :raises RegistryError: the upstream's last failure, if its circuit is open and content is missing.
        """
        open_circuit = self._gateway.open_circuit(request)
        if open_circuit is not None and not await self._manifests.is_complete(place, stored):
            raise open_circuit

    async def _consult(
        self, request: RegistryRequest, facts: Facts, place: Repository, digest: Digest
    ) -> StoredManifest | None:
        """Return the stored manifest if the upstream gives it to this client from here, or None."""
        generation = await self._generations.generation(place)
        try:
            decision = await self._gateway.consult(request, facts)
        except RegistryError as error:
            if facts.in_doubt and await self._gateway.is_known_gone(request, error):
                await self._contents.unlink(place, digest, ContentKind.MANIFEST)
            raise
        if decision is Decision.DENY:
            return None
        if decision is Decision.ALLOW and await self._generations.confirm(
            place, generation, digest, ContentKind.MANIFEST
        ):
            await self._contents.link(place, digest, ContentKind.MANIFEST)
        return await self._manifests.get(place, digest)

    async def _get_by_tag(self, request: RegistryRequest, place: Repository, tag: Tag, ttl: float) -> Answer:
        tagged = await self._find_tagged(place, tag)
        if tagged is None:
            return await self._fetch_upstream(request, place, tag)
        if not accepts(request.accept, tagged.stored.media_type):
            return await self._pass_through(request)
        facts = await self._gateway.facts(request, tagged.stored.digest)
        result = None if request.revalidate else await self._judge_age(request, tagged.age, ttl)
        facts = evolve(facts, in_doubt=tagged.in_doubt, fresh=result is not None)
        if result is not None and authorize(facts) is Decision.ALLOW:
            await self._check_complete(request, place, tagged.stored)
            return answer_stored(request, tagged.stored, CacheStatus(result, tagged.age))
        try:
            current, confirmed = await self._resolve_tag(request, tagged, facts)
        except RegistryError as error:
            return await self._serve_stale(request, tagged, error)
        if current is None:
            return await self._adapt(request, confirmed)
        if not accepts(request.accept, current.media_type):
            return await self._pass_through(request)
        status = CacheStatus(CacheResult.CONFIRMED, confirmed.age or 0.0)
        return evolve(answer_stored(request, current, status), headers=confirmed.headers)

    async def _judge_age(self, request: RegistryRequest, age: float, ttl: float) -> CacheResult | None:
        """Return the result with which a tag of that age may be served at once, or None.

        Where clients write, and while the upstream cannot be asked, no tag is served beyond its TTL.
        """
        if 0 <= age < ttl:
            return CacheResult.HIT
        if not ttl <= age < ttl + self._lifetime.while_revalidate:
            return None
        is_reachable = self._gateway.open_circuit(evolve(request, credentials=None)) is None
        if not is_reachable or await self._generations.may_be_written():
            return None
        return CacheResult.STALE_WHILE_REVALIDATE

    async def _find_tagged(self, place: Repository, tag: Tag) -> _TaggedManifest | None:
        entry = await self._tags.get(place, tag)
        stored = await self._manifests.get(place, entry.digest) if entry else None
        if entry is None or stored is None:
            return None
        in_doubt = entry.confirmed <= await self._generations.last_doubt(place)
        return _TaggedManifest(place, tag, stored, self._clock.seconds() - entry.confirmed, in_doubt)

    async def _resolve_tag(
        self, request: RegistryRequest, tagged: _TaggedManifest, facts: Facts
    ) -> tuple[StoredManifest | None, Answer]:
        """Return the stored manifest that the tag names now, with the upstream's answer that confirms it.

        Return None and the upstream's manifest if no such manifest is stored.

        A HEAD, which Docker Hub does not count as a pull, reports it; concurrent requests share one.  A new
        manifest is fetched even for a client's HEAD: the client requests it by its digest next, and a rate
        limit could refuse it then, while now the stored one can still be served.

        After a write of unknown outcome the HEAD has no condition: docker-registry answers 304 for a tag
        whose manifest it has deleted.
        """
        head = evolve(
            request,
            head=True,
            accept=EVERYTHING,
            if_none_match=None if tagged.in_doubt else format_etag(tagged.stored.digest),
            revalidate=False,
        )
        have_stale = await self._have_stale(tagged, facts)
        generation = await self._generations.generation(tagged.place)
        response = await self._heads.get((head, generation), lambda: self._gateway.fetch(head, have_stale))
        digest = tagged.stored.digest if response.status == 304 else response.body.descriptor.digest
        stored = await self._manifests.get(tagged.place, digest) if digest and response.consents else None
        if stored is None:
            get = evolve(request, head=False)
            return None, await self._fetcher.get(get, tagged.place, tagged.tag, have_stale)
        age = response.age or 0.0
        await self._fetcher.confirm(tagged.place, generation, tagged.tag, stored.digest, age)
        return stored, response

    async def _have_stale(self, tagged: _TaggedManifest, facts: Facts) -> bool:
        """Return whether the stored image is complete, and may be served while the upstream is down."""
        is_of_use = facts.have_stale and not await self._is_too_old(tagged)
        return is_of_use and await self._manifests.is_complete(tagged.place, tagged.stored)

    async def _serve_stale(
        self, request: RegistryRequest, tagged: _TaggedManifest, error: RegistryError
    ) -> Answer:
        """Serve the stored manifest if the upstream could not answer; else raise its refusal.

        A 404 deletes the tag only if the client is authorized, so that strangers cannot purge the cache.
        """
        facts = await self._gateway.facts(request, tagged.stored.digest)
        facts = evolve(facts, expired=await self._is_too_old(tagged))
        if not await self._gateway.is_stale_allowed(request, facts, error):
            if error.status == 404 and facts.is_authorized:
                await self._tags.forget(tagged.place, tagged.tag)
            raise error
        if not await self._manifests.is_complete(tagged.place, tagged.stored):
            raise error
        _log.warn("{target} is served stale: {error}", target=str(request.target), error=error.summary)
        status = CacheStatus(CacheResult.STALE, tagged.age, error.summary)
        return answer_stored(request, tagged.stored, status)

    async def _is_too_old(self, tagged: _TaggedManifest) -> bool:
        """Return whether it was confirmed too long ago; never so for imports, which may have no upstream."""
        if tagged.age < MAX_STALE:
            return False
        return not await self._gateway.public.is_imported(Repository(tagged.place.rest), tagged.stored.digest)

    async def _fetch_upstream(self, request: RegistryRequest, place: Repository, tag: Tag | None) -> Answer:
        """Fetch and store the upstream's manifest, and return the answer for this client."""
        return await self._adapt(request, await self._fetcher.get(request, place, tag))

    async def _adapt(self, request: RegistryRequest, answer: Answer) -> Answer:
        """Return this client's version of the answer that all clients share."""
        descriptor = answer.body.descriptor
        if not accepts(request.accept, kind_of(descriptor)):
            return await self._pass_through(request)
        if etag_matches(request.if_none_match, descriptor.digest):
            return evolve(answer, status=304, body=NoBody(descriptor))
        return evolve(answer, body=NoBody(descriptor)) if request.head else answer

    async def _pass_through(self, request: RegistryRequest) -> Answer:
        """Ask the upstream for a client that does not accept the stored media type."""
        return evolve(await self._gateway.fetch(request), cache=CacheStatus(CacheResult.MISS))
