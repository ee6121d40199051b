"""A registry asked with tokens of the mirror's own: anybody's, or those of an account."""

from __future__ import annotations

from math import inf

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..body.in_memory import collect
from ..concurrency.single_flight import SingleFlight
from ..interfaces import Answer, IAccount, IRegistry
from ..oci.challenge import find_challenge
from ..oci.credentials import Credentials
from ..oci.errors import Denied, Unauthorized
from ..oci.request import RegistryRequest
from ..oci.scope import Scope
from ..oci.token import Login, Token, TokenRequest
from ..upstream.token_relay import TOKEN_LIMIT
from ..upstream.upstream_accounts import LoginAttempts

_KEPT = 10_000
_MARGIN = 0.9


@implementer(IRegistry)
class TokenRegistry:
    """Gives every request a token of the mirror's own; a client's credentials go no further than here.

    A token is kept for nine tenths of its life; many who need the same one wait for one request.

    :param account: by whose login tokens are asked for; its password is sent to the registry itself where
        that is what it demands.  Without an account, tokens are those that anybody is given.
    """

    def __init__(self, registry: IRegistry, clock: IReactorTime, account: IAccount | None = None) -> None:
        self._registry = registry
        self._clock = clock
        self._logins = LoginAttempts(account, clock)
        self._kept: dict[Scope, tuple[float, Credentials]] = {}
        self._joined: SingleFlight[Scope, Credentials] = SingleFlight()

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._registry.token(request)

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``."""
        scope = request.target.scope
        if scope is None:
            return await self._registry.fetch(evolve(request, credentials=None))
        sent = self._known(scope)
        try:
            return await self._registry.fetch(evolve(request, credentials=sent))
        except Unauthorized as refused:
            challenged = refused
        if sent is not None and self._known(scope) == sent:
            del self._kept[scope]
        if find_challenge(challenged.challenges, "Bearer") is not None:
            token = await self._token(challenged, scope)
            return await self._registry.fetch(evolve(request, credentials=token))
        if find_challenge(challenged.challenges, "Basic") is not None:
            return await self._by_password(request, challenged, scope, sent)
        raise challenged

    async def _token(self, challenged: Unauthorized, scope: Scope) -> Credentials:
        """A token, which another request may have obtained meanwhile."""
        known = self._known(scope)
        return known or await self._joined.get(scope, lambda: self._obtain(challenged, scope))

    async def _obtain(self, challenged: Unauthorized, scope: Scope) -> Credentials:
        """A new token.

        :raises Unauthorized: the challenge, where the token service refuses (as ghcr.io does to anybody
            who asks for what is private): the answer is still "log in".
        :raises Denied: where the mirror's credentials may not be sent to the token service.
        """
        async for login in self._logins.iterate_logins(scope):
            try:
                token = await self._ask(login, scope)
            except (Unauthorized, Denied) as refused:
                if refused.upstream_status is None:
                    raise
            else:
                self._logins.mark_accepted(scope)
                until = self._clock.seconds() + token.expires_in * _MARGIN
                return self._keep(scope, until, Credentials.bearer(token.value))
        raise challenged from None

    async def _ask(self, login: Login, scope: Scope) -> Token:
        answer = await self._registry.token(login.token_request(scope))
        return Token.parse(await collect(answer.body, TOKEN_LIMIT))

    async def _by_password(
        self, request: RegistryRequest, challenged: Unauthorized, scope: Scope, sent: Credentials | None
    ) -> Answer:
        """The answer to the account's password.

        :param sent: what was refused just now.
        :raises Unauthorized: the challenge, where there is no password, or it is refused.
        """
        async for login in self._logins.iterate_logins(scope):
            if login.credentials is None or login.credentials == sent:
                continue
            try:
                answer = await self._registry.fetch(evolve(request, credentials=login.credentials))
            except Unauthorized as refused:
                challenged = refused
            else:
                self._logins.mark_accepted(scope)
                self._keep(scope, inf, login.credentials)
                return answer
        raise challenged

    def _known(self, scope: Scope) -> Credentials | None:
        until, credentials = self._kept.get(scope, (0.0, None))
        return credentials if self._clock.seconds() < until else None

    def _keep(self, scope: Scope, until: float, credentials: Credentials) -> Credentials:
        if len(self._kept) >= _KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[scope] = until, credentials
        return credentials
