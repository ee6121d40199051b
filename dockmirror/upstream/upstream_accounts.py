"""The mirror's own accounts at upstreams, and the pauses after a login was refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..concurrency.backoff import Backoff
from ..concurrency.coroutines import SingleFlight, TTLCache
from ..interfaces import IAccount
from ..oci.errors import Unavailable
from ..oci.token import Credentials, Login, Scope
from ..system.posix import ProcessFailed, ProcessResult

LOGIN_TTL = 600.0
"""Seconds for which a helper's login is cached; the secrets of registries live longer."""
RETRY_AFTER = 60.0
"""Seconds after a failure until the helper runs again."""
IDENTITY_USERNAME = "<token>"
"""The user name that marks the secret as an identity token."""
_log = Logger()
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 600.0
"""Seconds for which an account pauses after a refusal, doubled with each further one."""


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
