"""The login: ``/v2/`` and the token dance, answered from the cache where that is enough."""

from __future__ import annotations

import json

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..body.in_memory import collect, json_body
from ..concurrency.backoff import is_outage
from ..concurrency.caching import SingleFlight
from ..interfaces import Answer, IDocumentStore, ITokenService
from ..oci.cache_status import CacheResult, CacheStatus
from ..oci.challenge import Challenge
from ..oci.credentials import Credentials
from ..oci.errors import NameInvalid, RegistryError, Unauthorized
from ..oci.reference import Repository
from ..oci.request import Ping, RegistryRequest
from ..oci.scope import Scope
from ..oci.token import MARKER_ANSWER, Token, TokenRequest
from .error_tolerant_store import ErrorTolerantDocumentStore
from .grants import PUBLIC, PUBLIC_IN_OUTAGE
from .responses import bypassed
from .upstream_gateway import UpstreamGateway

ANEW = 300.0
"""Seconds after which what ``/v2/`` said is asked for again, behind the back of who asks."""
BELIEVED = 7 * 24 * 3600.0
"""Seconds after which it is not believed any more, unless the upstream cannot be asked."""
_TOKEN_LIMIT = 64 * 1024


@frozen
class _Known:
    """The challenges of an anonymous ``/v2/``, if any, and the time of that answer (Unix seconds)."""

    at: float
    challenges: tuple[Challenge, ...]

    @classmethod
    def read(cls, document: bytes | None) -> _Known | None:
        try:
            at, challenges = json.loads(document or b"null")
            return cls(float(at), tuple(Challenge(scheme, dict(told)) for scheme, told in challenges))
        except (ValueError, TypeError):
            return None

    def write(self) -> bytes:
        return json.dumps([self.at, [[c.scheme, dict(c.parameters)] for c in self.challenges]]).encode()

    def answer(self) -> Answer:
        """:raises Unauthorized: where the upstream challenged."""
        if self.challenges:
            raise Unauthorized(challenges=self.challenges)
        return Answer(json_body(b"{}"), cache=CacheStatus())


_NOTHING = _Known(0.0, (Challenge("Bearer"),))
"""The challenge for clients of an upstream that never answered; the token request then shows its state."""


@implementer(ITokenService)
class LoginCache:
    """The login at one upstream, kept over a restart.

    :param entry: the upstream's name.
    """

    def __init__(
        self, entry: str, gateway: UpstreamGateway, documents: IDocumentStore, clock: IReactorTime
    ) -> None:
        self._name = f"login/{entry}"
        self._gateway = gateway
        self._documents: IDocumentStore = ErrorTolerantDocumentStore(documents)
        self._clock = clock
        self._known: _Known | None = None
        self._joined: SingleFlight[None, _Known] = SingleFlight()

    async def ping(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry.fetch``; with credentials it is their check, and always forwarded.

        Nobody waits for an upstream that has ever answered: dockerd gives up after 15 s, without a word.
        """
        if request.credentials is not None:
            return bypassed(await self._gateway.ask(request))
        known = self._known = self._known or _Known.read(await self._documents.read(self._name))
        age = self._clock.seconds() - known.at if known else 0.0
        if known is None or not 0 <= age < BELIEVED:
            return (await self._learnt_or(known or _NOTHING)).answer()
        if age >= ANEW:
            learning = Deferred.fromCoroutine(self._learnt_or(known))
            learning.addErrback(lambda failure: failure.trap(RegistryError))
        return known.answer()

    async def _learnt_or(self, otherwise: _Known) -> _Known:
        try:
            return await self._joined.get(None, self._learnt)
        except RegistryError as error:
            if not is_outage(error):
                raise
            return otherwise

    async def _learnt(self) -> _Known:
        challenges: tuple[Challenge, ...] = ()
        try:
            answer = await self._gateway.ask(RegistryRequest(Ping()), have_stale=self._known is not None)
            answer.body.discard()
        except Unauthorized as refused:
            challenges = refused.challenges
        known = self._known = _Known(self._clock.seconds(), challenges)
        await self._documents.write(self._name, known.write())
        return known

    async def token(self, request: TokenRequest) -> Answer:
        """See ``ITokenService``.

        An anonymous client that wants to pull what is known to be public is given the marker that stands
        for no credentials, and no token service is asked: so warm pulls stay in the building, and go on
        during an outage.
        """
        if request.is_anonymous and await self._are_public(request.scopes, PUBLIC):
            return _marker(CacheResult.HIT)
        covered = request.is_anonymous and await self._are_public(request.scopes, PUBLIC_IN_OUTAGE, True)
        try:
            answer = await self._gateway.token(request, have_stale=covered)
        except RegistryError as error:
            if covered and is_outage(error):
                return _marker(CacheResult.STALE)
            raise
        return await self._noted(answer)

    async def _are_public(self, scopes: tuple[Scope, ...], age: float, imports: bool = False) -> bool:
        """Return whether all scopes are for pulls from repositories that were public so short a time ago.

        :param imports: whether a repository of which something was imported counts, too.
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
            if not is_public and not (imports and await public.imported(repository)):
                return False
        return bool(scopes)

    async def _noted(self, answer: Answer) -> Answer:
        """The answer, once it is noted how long the token in it lives."""
        body = await collect(answer.body, _TOKEN_LIMIT)
        token = Token.parse(body)
        self._gateway.grants.expire(Credentials.bearer(token.value), token.expires_in)
        return bypassed(evolve(answer, body=json_body(body)))


def _marker(result: CacheResult) -> Answer:
    return Answer(json_body(MARKER_ANSWER), cache=CacheStatus(result))
