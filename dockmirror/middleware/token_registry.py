"""A registry asked with the mirror's own tokens: anonymous ones, or those of an account."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..body.in_memory import collect
from ..concurrency.coroutines import SingleFlight
from ..interfaces import Answer, IAccount, IRegistry, IUpstream
from ..oci.errors import Denied, RegistryError, Unauthorized, find_challenge
from ..oci.request import RegistryRequest
from ..oci.token import Credentials, Login, Scope, Token
from ..upstream.token_relay import TOKEN_LIMIT
from ..upstream.upstream_accounts import LoginAttempts

RENEWAL = 0.7
"""Share of a token's life after which its next use obtains another one, for which nobody waits."""
_MOST = 10_000
_MARGIN = 0.9
_log = Logger()


@frozen
class _KeptToken:
    """Credentials for a scope, and the times from which a use renews them, and until which they are sent."""

    credentials: Credentials
    renews: float
    until: float


@implementer(IRegistry)
class TokenRegistry:
    """Sends each request with a token of the mirror's own; clients' credentials are dropped.

    A token is kept for nine tenths of its life; concurrent requests for the same scope share one.  A token in
    use is renewed before that time ends.

    :param account: the account that obtains tokens; its password is sent to the registry itself if that asks
        for Basic.  Without an account, tokens are anonymous.
    :param refused: is called when the account was refused; see ``LoginAttempts``.
    """

    def __init__(
        self,
        registry: IUpstream,
        clock: IReactorTime,
        account: IAccount | None = None,
        refused: Callable[[Scope, bool], None] = lambda *_: None,
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._logins = LoginAttempts(account, clock, refused)
        self._tokens: dict[Scope, _KeptToken] = {}
        self._obtaining: SingleFlight[Scope, Credentials] = SingleFlight()

    async def fetch(self, request: RegistryRequest) -> Answer:
        scope = request.target.scope
        if scope is None:
            return await self._registry.fetch(evolve(request, credentials=None))
        sent = self._known(scope)
        self._renew_in_time(scope)
        try:
            return await self._registry.fetch(evolve(request, credentials=sent))
        except Unauthorized as refused:
            challenged = refused
        if sent is not None and self._known(scope) == sent:
            del self._tokens[scope]
        if find_challenge(challenged.challenges, "Bearer") is not None:
            token = await self._token(challenged, scope)
            return await self._registry.fetch(evolve(request, credentials=token))
        if find_challenge(challenged.challenges, "Basic") is not None:
            return await self._fetch_by_password(request, challenged, scope, sent)
        raise challenged

    async def _token(self, challenged: Unauthorized, scope: Scope) -> Credentials:
        """Return a token, which another request may have obtained meanwhile.

        :raises Unauthorized: this request's challenge, as a renewal that it joined had none.
        """
        known = self._known(scope)
        try:
            return known or await self._obtaining.get(scope, lambda: self._obtain(challenged, scope))
        except Unauthorized:
            raise challenged from None

    async def _obtain(self, challenged: Unauthorized, scope: Scope) -> Credentials:
        """Obtain a token.

        :raises Unauthorized: the challenge, if the token service refuses (as ghcr.io does for private
            images): the answer is still "log in".
        :raises Denied: if the mirror's credentials may not be sent to the token service.
        """
        async for login in self._logins.iterate_logins(scope):
            try:
                token = await self._ask(login, scope)
            except (Unauthorized, Denied) as refused:
                if refused.upstream_status is None:
                    raise
            else:
                self._logins.mark_accepted(scope)
                now, life = self._clock.seconds(), token.expires_in
                credentials = Credentials.bearer(token.value)
                return self._keep(scope, _KeptToken(credentials, now + life * RENEWAL, now + life * _MARGIN))
        raise challenged from None

    async def _ask(self, login: Login, scope: Scope) -> Token:
        answer = await self._registry.token(login.token_request(scope))
        return Token.parse(await collect(answer.body, TOKEN_LIMIT))

    async def _fetch_by_password(
        self, request: RegistryRequest, challenged: Unauthorized, scope: Scope, sent: Credentials | None
    ) -> Answer:
        """Fetch with the account's password.

        :param sent: the credentials that were just refused.
        :raises Unauthorized: the challenge, if there is no password, or it is refused.
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
                self._keep(scope, _KeptToken(login.credentials, inf, inf))
                return answer
        raise challenged

    def _known(self, scope: Scope) -> Credentials | None:
        kept = self._tokens.get(scope)
        return kept.credentials if kept is not None and self._clock.seconds() < kept.until else None

    def _renew_in_time(self, scope: Scope) -> None:
        """Begin to obtain another token if the known one is old; once, as it can still be used."""
        kept = self._tokens.get(scope)
        if kept is None or not kept.renews <= self._clock.seconds() < kept.until:
            return
        self._tokens[scope] = evolve(kept, renews=inf)
        renewal = self._obtaining.get(scope, lambda: self._obtain(Unauthorized(), scope))
        Deferred.fromCoroutine(renewal).addErrback(_log_failed_renewal, scope)

    def _keep(self, scope: Scope, token: _KeptToken) -> Credentials:
        if len(self._tokens) >= _MOST:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[scope] = token
        return token.credentials


@implementer(IRegistry)
class AccountRouter:
    """One registry, asked with another account for some repositories.

    :param registries: the registry as each account asks it, by the names of the accounts.
    :param choose: returns the name of the account for a request.
    """

    def __init__(self, registries: Mapping[str, IRegistry], choose: Callable[[RegistryRequest], str]) -> None:
        self._registries = registries
        self._choose = choose

    async def fetch(self, request: RegistryRequest) -> Answer:
        return await self._registries[self._choose(request)].fetch(request)


def _log_failed_renewal(failure: Failure, scope: Scope) -> None:
    error = failure.value
    if isinstance(error, RegistryError):
        _log.info("the token for {scope} was not renewed: {error}", scope=str(scope), error=error.summary)
    else:
        _log.failure("the token for {scope} was not renewed", failure, scope=str(scope))
