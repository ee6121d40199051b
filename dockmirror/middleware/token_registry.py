"""A registry asked with the mirror's own tokens: anonymous ones, or those of its accounts at upstreams."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from math import inf

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..body.bodies import collect
from ..concurrency.backoff import Backoff
from ..concurrency.coroutines import SingleFlight, TTLCache
from ..interfaces import Answer, IAccount, IRegistry, IUpstream
from ..oci.errors import Denied, RegistryError, Unauthorized, Unavailable, find_challenge
from ..oci.request import RegistryRequest
from ..oci.token import Credentials, Login, Scope, Token
from ..system.external_program import ProcessFailed, ProcessResult
from ..upstream.registry_client import TOKEN_LIMIT

LOGIN_TTL = 600.0
"""Seconds for which a helper's login is cached; the secrets of registries live longer."""
RETRY_AFTER = 60.0
"""Seconds after a failure until the helper runs again."""
IDENTITY_USERNAME = "<token>"
"""The user name that marks the secret as an identity token."""
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 600.0
"""Seconds for which an account pauses after a refusal, doubled with each further one."""
RENEWAL = 0.7
"""Share of a token's life after which its next use obtains another one, for which nobody waits."""
_MOST = 10_000
_MARGIN = 0.9
_log = Logger()


@implementer(IAccount)
class CredentialHelper:
    """An account whose secret a credential helper stores; concurrent logins share one process.

    The output of the helper may hold a secret, even if it failed, and is never shown.  Source: the protocol
    of docker-credential-helpers: ``docker-credential-NAME get`` reads a server's address and writes JSON;
    without an entry it exits with another status than 0.

    :param upstream: its name in the settings, for messages.
    :param server: the address by which the helper knows the server.
    :param run: runs the helper with this input; raises ``ProcessFailed``.
    """

    def __init__(
        self,
        upstream: str,
        server: str,
        run: Callable[[bytes], Awaitable[ProcessResult]],
        clock: IReactorTime,
    ) -> None:
        self._upstream = upstream
        self._server = server
        self._run = run
        self._cached: TTLCache[str, Login] = TTLCache(clock, 1)
        self._recent_failures: TTLCache[str, bool] = TTLCache(clock, 1)
        self._single_flight: SingleFlight[str, Login] = SingleFlight()

    async def login(self) -> Login:
        if self._recent_failures.get(self._server):
            raise self._unavailable()
        return self._cached.get(self._server) or await self._single_flight.get(self._server, self._obtain)

    def forget(self, login: Login) -> None:
        """Forget the login, so that the helper runs again."""
        if self._cached.get(self._server) == login:
            self._cached.drop(self._server)

    async def _obtain(self) -> Login:
        try:
            login = parse_login(await self._run(self._server.encode()))
        except ProcessFailed as error:
            reason = (
                f"the credential helper of {self._upstream} provides no login for {self._server}: it {error}"
            )
            _log.warn("{reason}", reason=reason)
            self._recent_failures.put(self._server, True, RETRY_AFTER)
            raise self._unavailable() from None
        self._cached.put(self._server, login, LOGIN_TTL)
        return login

    def _unavailable(self) -> Unavailable:
        return Unavailable(f"the mirror's credential helper for {self._upstream} provides no login")


def parse_login(result: ProcessResult) -> Login:
    """Parse the output of a helper.

    :raises ProcessFailed: when it is not a login, without repeating any of it.
    """
    if result.code != 0:
        raise ProcessFailed("was killed" if result.code is None else f"ended with status {result.code}")
    try:
        fields = json.loads(result.output)
        login = _login(fields["Username"], fields["Secret"])
    except (ValueError, KeyError, TypeError, RecursionError):
        login = None
    if login is None:
        raise ProcessFailed("did not write a user name and a secret")
    return login


def _login(name: object, secret: object) -> Login | None:
    if not isinstance(name, str) or not isinstance(secret, str) or not name or not secret or ":" in name:
        return None
    if not (name + secret).isprintable():
        return None
    return (
        Login(identity_token=secret) if name == IDENTITY_USERNAME else Login(Credentials.basic(name, secret))
    )


@implementer(IAccount)
@frozen
class FixedAccount:
    """An account whose login never changes."""

    constant_login: Login

    async def login(self) -> Login:
        return self.constant_login

    def forget(self, login: Login) -> None:
        """Do nothing: there is no other login."""


class LoginAttempts:
    """The logins to try for an account, or anonymously without one.

    After a refusal the account pauses for that scope: registries lock accounts that keep failing.

    :param refused: is called when the account was refused for a scope, with True the first time, and the
        first time after a success.
    """

    def __init__(
        self,
        account: IAccount | None,
        clock: IReactorTime,
        refused: Callable[[Scope, bool], None] = lambda *_: None,
    ) -> None:
        self._account = account
        self._refused = refused
        self._backoff: Backoff[Scope, None] = Backoff(clock, FIRST_PAUSE, LONGEST_PAUSE)

    async def iterate_logins(self, scope: Scope) -> AsyncIterator[Login]:
        """Yield one login after another; asking for the next one means that the last was refused.

        :raises Unavailable: when the account has no login.
        """
        if self._account is None:
            yield Login()
            return
        if self._backoff.current_pause(scope) is not None:
            return
        login = await self._account.login()
        yield login
        self._account.forget(login)
        other = await self._account.login()
        if other != login:
            yield other
        self._pause(scope)

    def mark_accepted(self, scope: Scope) -> None:
        """End the pauses of a scope: the login was accepted."""
        self._backoff.record_success(scope)

    def _pause(self, scope: Scope) -> None:
        is_paused = self._backoff.current_pause(scope) is not None
        is_first = self._backoff.record_failure(scope, None) == FIRST_PAUSE and not is_paused
        self._refused(scope, is_first)


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
