"""The login: ``/v2/`` and token requests, answered from the cache where possible."""

from __future__ import annotations

import json

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..body.in_memory import collect, json_body
from ..concurrency.backoff import is_outage
from ..concurrency.coroutines import SingleFlight
from ..interfaces import Answer, IDocumentStore, ITokenService
from ..oci.errors import Challenge, NameInvalid, RegistryError, Unauthorized
from ..oci.header_fields import CacheResult, CacheStatus
from ..oci.request import Ping, RegistryRequest, Repository
from ..oci.token import MARKER_ANSWER, Credentials, Scope, Token, TokenRequest
from .error_tolerant_store import ErrorTolerantDocumentStore
from .grants import PUBLIC_STALE_TTL, PUBLIC_TTL
from .upstream_gateway import UpstreamGateway, bypassed

REFRESH_AFTER = 300.0
"""Seconds after which the answer of ``/v2/`` is refreshed in the background."""
MAX_AGE = 7 * 24 * 3600.0
"""Seconds after which the answer is used only while the upstream is down."""
_TOKEN_LIMIT = 64 * 1024


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


_DEFAULT = _LoginChallenges(0.0, (Challenge("Bearer"),))
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
            return (await self._refresh_or(known or _DEFAULT)).answer()
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
