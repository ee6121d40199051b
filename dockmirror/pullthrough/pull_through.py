"""The pull-through cache as a registry, with its answers to logins and to requests for lists.

A query for a list with parameters that the specification does not define is passed on, as a registry's own
pages may need it, but not cached: it would let a client fill the cache with copies of one list.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from attrs import astuple, define, evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..body.bodies import BytesBody, Tee, collect, json_body
from ..concurrency.backoff import is_outage
from ..concurrency.coroutines import SingleFlight
from ..interfaces import Answer, IDocumentStore, IRegistry, ITokenService
from ..oci.digest import Descriptor
from ..oci.errors import Challenge, Denied, NameInvalid, RegistryError, Unauthorized
from ..oci.header_fields import CacheResult, CacheStatus
from ..oci.request import (
    Blob,
    Catalog,
    InRepository,
    Manifest,
    Ping,
    Referrers,
    RegistryRequest,
    Repository,
    Tags,
    Target,
)
from ..oci.token import MARKER_ANSWER, Credentials, Scope, Token, TokenRequest
from .authorization import MAX_STALE, PUBLIC_STALE_TTL, PUBLIC_TTL, Decision, Facts, authorize
from .blobs import BlobCache
from .error_tolerant_store import ErrorTolerantDocumentStore
from .generations import Generations, without_doubts
from .manifests import ManifestCache
from .upstream_gateway import UpstreamGateway, bypassed

LIST_LIMIT = 4 * 1024 * 1024
"""Bytes; a longer list is passed on and not cached."""
LIST_PARAMETERS = {Tags: ("last", "n"), Referrers: ("artifactType",)}
"""The parameters of cached lists, each given at most once."""
_FILTERS = "OCI-Filters-Applied"
REFRESH_AFTER = 300.0
"""Seconds after which the answer of ``/v2/`` is refreshed in the background."""
MAX_AGE = 7 * 24 * 3600.0
"""Seconds after which the answer is used only while the upstream is down."""
_TOKEN_LIMIT = 64 * 1024
_log = Logger()


@frozen
class _CachedList:
    """A list as the upstream sent it.

    :ivar fetched_at: seconds since the epoch.
    :ivar generation: the repository's, from before the request.
    :ivar filters: the value of ``OCI-Filters-Applied``, if the registry has filtered the list.
    """

    fetched_at: float
    media_type: str | None
    next_page: tuple[tuple[str, str], ...] | None
    body: str
    generation: str = ""
    filters: str | None = None

    @classmethod
    def read(cls, document: bytes | None) -> _CachedList | None:
        try:
            fetched_at, media_type, next_page, body, *rest = json.loads(document or b"null")
            pages = None if next_page is None else tuple((key, value) for key, value in next_page)
            return cls(float(fetched_at), media_type, pages, body, *rest)
        except (ValueError, TypeError):
            return None

    def write(self) -> bytes:
        return json.dumps(astuple(self)).encode()

    def answer(self, status: CacheStatus) -> Answer:
        data = self.body.encode()
        content = BytesBody(data, Descriptor(self.media_type, None, len(data)))
        headers = () if self.filters is None else ((_FILTERS, self.filters),)
        return Answer(content, headers=headers, next_page=self.next_page, cache=status)


class ListCache:
    """The lists of one registry's repositories.

    :param partition: returns the cache partition of a repository.
    :param tag_ttl: returns the seconds for which the list of a public repository is fresh.
    :param generations: the registry's generations; a list from an earlier one is not used.
    """

    def __init__(
        self,
        partition: Callable[[Repository], str],
        gateway: UpstreamGateway,
        documents: IDocumentStore,
        clock: IReactorTime,
        tag_ttl: Callable[[InRepository], float],
        generations: Generations,
    ) -> None:
        self._generations = generations
        self._partition = partition
        self._gateway = gateway
        self._documents: IDocumentStore = ErrorTolerantDocumentStore(documents)
        self._clock = clock
        self._tag_ttl = tag_ttl

    async def fetch(self, request: RegistryRequest, target: Tags | Referrers) -> Answer:
        if not _is_cacheable(request, target):
            return bypassed(await self._gateway.fetch(request))
        name = self._name(request, target.repository)
        generation = (
            await self._generations.generation(self._generations.store_name(target.repository))
        ).decode()
        cached = _CachedList.read(await self._documents.read(name))
        if cached is not None and without_doubts(cached.generation) != without_doubts(generation):
            cached = None
        age = self._clock.seconds() - cached.fetched_at if cached else 0.0
        facts = await self._facts(request, target, cached, generation)
        if cached and authorize(facts) is Decision.ALLOW:
            return cached.answer(CacheStatus(age=age))
        try:
            answer = await self._gateway.fetch(request, facts.have_stale)
        except RegistryError as error:
            facts = await self._facts(request, target, cached, generation)
            if cached is None or not await self._gateway.is_stale_allowed(request, facts, error):
                raise
            _log.warn("{target} is served stale: {error}", target=str(target), error=error.summary)
            return cached.answer(CacheStatus(CacheResult.STALE, age, error.summary))
        return self._remember(name, generation, answer)

    async def _facts(
        self, request: RegistryRequest, target: Tags | Referrers, cached: _CachedList | None, generation: str
    ) -> Facts:
        """Return the facts about a request.

        :param generation: the repository's current one.
        """
        facts = await self._gateway.facts(request)
        if cached is None:
            return evolve(facts, held=False)
        age = self._clock.seconds() - cached.fetched_at
        return evolve(
            facts,
            in_doubt=cached.generation != generation,
            fresh=0 <= age < self._tag_ttl(target) and not request.revalidate,
            expired=age >= MAX_STALE,
        )

    def _remember(self, name: str, generation: str, answer: Answer) -> Answer:
        content = Tee(answer.body, LIST_LIMIT, lambda body: self._store(name, generation, answer, body))
        return evolve(answer, body=content, cache=CacheStatus(CacheResult.MISS))

    def _store(self, name: str, generation: str, answer: Answer, body: bytes) -> None:
        """Store a list that is complete JSON; without ``Content-Length``, a truncated one looks complete."""
        try:
            json.loads(body)
            text = body.decode()
        except (ValueError, RecursionError):
            return
        media_type = answer.body.descriptor.media_type
        confirmed = self._clock.seconds() - (answer.age or 0.0)
        filters = dict(answer.headers).get(_FILTERS)
        cached = _CachedList(confirmed, media_type, answer.next_page, text, generation, filters)
        Deferred.fromCoroutine(self._documents.write(name, cached.write()))

    def _name(self, request: RegistryRequest, repository: Repository) -> str:
        normalized = evolve(request, query=tuple(sorted(request.query))).path_and_query()
        return f"lists/{self._partition(repository)}/{hashlib.sha256(normalized.encode()).hexdigest()}"


def _is_cacheable(request: RegistryRequest, target: Tags | Referrers) -> bool:
    names = [name for name, _ in request.query]
    return len(names) == len(set(names)) and set(names) <= set(LIST_PARAMETERS[type(target)])


@frozen
class _LoginChallenges:
    """The challenges of an anonymous ``/v2/``, if any, and the time of that answer (Unix seconds)."""

    time: float
    challenges: tuple[Challenge, ...]

    @classmethod
    def read(cls, document: bytes | None) -> _LoginChallenges | None:
        try:
            time, challenges = json.loads(document or b"null")
            return cls(float(time), tuple(Challenge(scheme, dict(params)) for scheme, params in challenges))
        except (ValueError, TypeError):
            return None

    def write(self) -> bytes:
        return json.dumps([self.time, [[c.scheme, dict(c.parameters)] for c in self.challenges]]).encode()

    def answer(self) -> Answer:
        """:raises Unauthorized: if the upstream sent challenges."""
        if self.challenges:
            raise Unauthorized(challenges=self.challenges)
        return Answer(json_body(b"{}"), cache=CacheStatus())


_DEFAULT_CHALLENGES = _LoginChallenges(0.0, (Challenge("Bearer"),))
"""The challenge for clients of an upstream that never answered; the token request then shows its state."""


@implementer(ITokenService)
class LoginCache:
    """The login at one upstream, stored across restarts.

    :param partition: the cache partition of the upstream.
    """

    def __init__(
        self, partition: str, gateway: UpstreamGateway, documents: IDocumentStore, clock: IReactorTime
    ) -> None:
        self._name = f"login/{partition}"
        self._gateway = gateway
        self._documents: IDocumentStore = ErrorTolerantDocumentStore(documents)
        self._clock = clock
        self._known: _LoginChallenges | None = None
        self._refreshes: SingleFlight[None, _LoginChallenges] = SingleFlight()

    async def ping(self, request: RegistryRequest) -> Answer:
        """Answer an anonymous ``/v2/`` from the cache; forward one with credentials, which checks these.

        No client waits for an upstream that has answered before: dockerd gives up silently after 15 s.
        """
        if request.credentials is not None:
            return bypassed(await self._gateway.fetch(request))
        known = self._known = self._known or _LoginChallenges.read(await self._documents.read(self._name))
        age = self._clock.seconds() - known.time if known else 0.0
        if known is None or not 0 <= age < MAX_AGE:
            return (await self._refresh_or(known or _DEFAULT_CHALLENGES)).answer()
        if age >= REFRESH_AFTER:
            refreshing = Deferred.fromCoroutine(self._refresh_or(known))
            refreshing.addErrback(lambda failure: failure.trap(RegistryError))
        return known.answer()

    async def _refresh_or(self, fallback: _LoginChallenges) -> _LoginChallenges:
        try:
            return await self._refreshes.get(None, self._refresh)
        except RegistryError as error:
            if not is_outage(error):
                raise
            return fallback

    async def _refresh(self) -> _LoginChallenges:
        challenges: tuple[Challenge, ...] = ()
        try:
            answer = await self._gateway.fetch(RegistryRequest(Ping()), have_stale=self._known is not None)
            answer.body.discard()
        except Unauthorized as refused:
            challenges = refused.challenges
        known = self._known = _LoginChallenges(self._clock.seconds(), challenges)
        await self._documents.write(self._name, known.write())
        return known

    async def token(self, request: TokenRequest) -> Answer:
        """Return a token.

        An anonymous client that wants to pull from public repositories gets the marker that stands for no
        credentials, without a request to the token service: cached pulls need no upstream, also in an outage.
        """
        if request.is_anonymous and await self._are_public(request.scopes, PUBLIC_TTL):
            return _marker(CacheResult.HIT)
        have_stale = request.is_anonymous and await self._are_public(request.scopes, PUBLIC_STALE_TTL, True)
        try:
            answer = await self._gateway.token(request, have_stale=have_stale)
        except RegistryError as error:
            if have_stale and is_outage(error):
                return _marker(CacheResult.STALE)
            raise
        return await self._record_lifetime(answer)

    async def _are_public(self, scopes: tuple[Scope, ...], age: float, or_imported: bool = False) -> bool:
        """Return whether all scopes are for pulls from repositories that were public within ``age`` seconds.

        :param or_imported: True if repositories with imported content count, too.
        """
        public = self._gateway.public
        for scope in scopes:
            if not scope.is_repository or scope.actions != ("pull",):
                return False
            try:
                repository = Repository.parse(scope.name)
            except NameInvalid:
                return False
            is_public = await public.age(repository) < age
            if not is_public and not (or_imported and await public.is_imported(repository)):
                return False
        return bool(scopes)

    async def _record_lifetime(self, answer: Answer) -> Answer:
        """Record the lifetime of the token in an answer, and return the answer."""
        body = await collect(answer.body, _TOKEN_LIMIT)
        token = Token.parse(body)
        self._gateway.grants.set_lifetime(Credentials.bearer(token.value), token.expires_in)
        return bypassed(evolve(answer, body=json_body(body)))


def _marker(result: CacheResult) -> Answer:
    return Answer(json_body(MARKER_ANSWER), cache=CacheStatus(result))


@implementer(IRegistry)
@define(eq=False)
class PullThrough:
    """Serves stored content to authorized clients, and fetches the rest."""

    _gateway: UpstreamGateway
    _logins: LoginCache
    _manifests: ManifestCache
    _blobs: BlobCache
    _lists: ListCache

    async def fetch(self, request: RegistryRequest) -> Answer:
        try:
            return await self._fetch(request)
        except RegistryError as error:
            raise _without_details(request.target, error) from error

    async def _fetch(self, request: RegistryRequest) -> Answer:
        match request.target:
            case Ping():
                return await self._logins.ping(request)
            case Manifest() as target:
                return await self._manifests.fetch(request, target)
            case Blob() as target:
                return await self._blobs.fetch(request, target)
            case Tags() | Referrers() as target:
                return await self._lists.fetch(request, target)
            case Catalog():
                return bypassed(await self._gateway.fetch(request))


def _without_details(target: Target, error: RegistryError) -> RegistryError:
    """Return the refusal of a digest without details that would reveal whether the content is stored.

    The upstream is asked about stored content in another way, and its refusal reads differently.
    """
    by_digest = isinstance(target, Blob) or (isinstance(target, Manifest) and target.digest is not None)
    if not by_digest or error.upstream_status != error.status:
        return error
    rows: dict[int, type[RegistryError]] = {401: Unauthorized, 403: Denied, 404: target.unknown}
    if error.status not in rows:
        return error
    return rows[error.status](
        challenges=error.challenges,
        upstream_status=error.upstream_status,
        from_other_host=error.from_other_host,
    )
