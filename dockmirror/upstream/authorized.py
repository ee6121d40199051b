"""A registry asked with tokens of the mirror's own: anybody's, or those of its own credentials."""

from __future__ import annotations

from math import inf

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..content.held import collect
from ..interfaces import Answer, IRegistry
from ..joined import Joined
from ..oci.challenge import find_challenge
from ..oci.credentials import Credentials
from ..oci.errors import Denied, Unauthorized
from ..oci.request import Request
from ..oci.scope import Scope
from ..oci.token import Token, TokenRequest
from .tokens import TOKEN_LIMIT

_KEPT = 10_000
_MARGIN = 0.9

_log = Logger()


@implementer(IRegistry)
class Authorized:
    """Gives every request a token of the mirror's own; a client's credentials go no further than here.

    A token is kept for nine tenths of its life; many who need the same one wait for one request.

    :param credentials: a name and a password (Basic) by which tokens are asked for, and which are sent to
        the registry itself where that is what it demands; without them, tokens are those that anybody is
        given.
    """

    def __init__(
        self, registry: IRegistry, clock: IReactorTime, credentials: Credentials | None = None
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._credentials = credentials
        self._kept: dict[Scope, tuple[float, Credentials]] = {}
        self._joined: Joined[Scope, Credentials] = Joined()

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._registry.token(request)

    async def fetch(self, request: Request) -> Answer:
        """See ``IRegistry``."""
        scope = request.target.scope
        if scope is None:
            return await self._registry.fetch(evolve(request, credentials=None))
        sent = self._known(scope)
        try:
            return await self._registry.fetch(evolve(request, credentials=sent))
        except Unauthorized as refused:
            challenged = refused
        credentials = await self._response(challenged, scope, sent)
        return await self._registry.fetch(evolve(request, credentials=credentials))

    async def _response(
        self, challenged: Unauthorized, scope: Scope, sent: Credentials | None
    ) -> Credentials:
        """What answers the challenge to what was sent.

        :raises Unauthorized: the challenge, where nothing does.
        """
        if find_challenge(challenged.challenges, "Bearer") is not None:
            if sent is not None and self._known(scope) == sent:
                del self._kept[scope]
            return self._known(scope) or await self._joined.get(
                scope, lambda: self._obtain(challenged, scope)
            )
        if self._credentials is None or sent == self._credentials:
            raise challenged
        if find_challenge(challenged.challenges, "Basic") is None:
            raise challenged
        return self._keep(scope, inf, self._credentials)

    async def _obtain(self, challenged: Unauthorized, scope: Scope) -> Credentials:
        """A new token.

        :raises Unauthorized: the challenge, where the token service refuses (as ghcr.io does to anybody
            who asks for what is private): the answer is still "log in".
        :raises Denied: where the mirror's credentials may not be sent to the token service.
        """
        try:
            answer = await self._registry.token(TokenRequest(scopes=(scope,), credentials=self._credentials))
        except (Unauthorized, Denied) as refused:
            if refused.upstream_status is None:
                raise
            if self._credentials is not None:
                _log.warn(
                    "the mirror's credentials were refused for {scope}: {error}",
                    scope=str(scope),
                    error=str(refused),
                )
            raise challenged from None
        token = Token.parse(await collect(answer.content, TOKEN_LIMIT))
        until = self._clock.seconds() + token.expires_in * _MARGIN
        return self._keep(scope, until, Credentials.bearer(token.value))

    def _known(self, scope: Scope) -> Credentials | None:
        until, credentials = self._kept.get(scope, (0.0, None))
        return credentials if self._clock.seconds() < until else None

    def _keep(self, scope: Scope, until: float, credentials: Credentials) -> Credentials:
        if len(self._kept) >= _KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[scope] = until, credentials
        return credentials
