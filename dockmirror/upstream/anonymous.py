"""A registry asked with anonymous tokens of the mirror's own."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
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


@implementer(IRegistry)
class Anonymous:
    """Gives every request a token that anybody could have; a client's credentials go no further than here.

    A token is kept for nine tenths of its life; many who need the same one wait for one request.
    """

    def __init__(self, registry: IRegistry, clock: IReactorTime) -> None:
        self._registry = registry
        self._clock = clock
        self._tokens: dict[Scope, tuple[float, Credentials]] = {}
        self._joined: Joined[Scope, Credentials] = Joined()

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._registry.token(request)

    async def fetch(self, request: Request) -> Answer:
        """See ``IRegistry``."""
        scope = request.target.scope
        if scope is None:
            return await self._registry.fetch(evolve(request, credentials=None))
        kept = self._kept(scope)
        try:
            return await self._registry.fetch(evolve(request, credentials=kept))
        except Unauthorized as refused:
            if find_challenge(refused.challenges, "Bearer") is None:
                raise
            if kept is not None and self._kept(scope) == kept:
                del self._tokens[scope]
            challenged = refused
        try:
            credentials = self._kept(scope) or await self._joined.get(scope, lambda: self._obtain(scope))
        except (Unauthorized, Denied):  # ghcr.io refuses the token itself: the answer is still "log in"
            raise challenged from None
        return await self._registry.fetch(evolve(request, credentials=credentials))

    def _kept(self, scope: Scope) -> Credentials | None:
        until, credentials = self._tokens.get(scope, (0.0, None))
        return credentials if self._clock.seconds() < until else None

    async def _obtain(self, scope: Scope) -> Credentials:
        answer = await self._registry.token(TokenRequest(scopes=(scope,)))
        token = Token.parse(await collect(answer.content, TOKEN_LIMIT))
        credentials = Credentials.bearer(token.value)
        if len(self._tokens) >= _KEPT:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[scope] = self._clock.seconds() + token.expires_in * _MARGIN, credentials
        return credentials
