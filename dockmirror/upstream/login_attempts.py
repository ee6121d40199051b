"""What the mirror logs in with, and the pauses after it was refused."""

from __future__ import annotations

from collections.abc import AsyncIterator

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..concurrency.ttl_cache import TTLCache
from ..interfaces import IAccount
from ..oci.scope import Scope
from ..oci.token import Login

FIRST, LONGEST = 60.0, 600.0
"""Seconds for which an account that was refused is not tried, doubled with each refusal up to the longest."""
_MOST = 10_000

_log = Logger()


@implementer(IAccount)
@frozen
class FixedAccount:
    """An account that always logs in with the same."""

    fixed: Login

    async def login(self) -> Login:
        """See ``IAccount``."""
        return self.fixed

    def refused(self, login: Login) -> None:
        """There is no other."""


@frozen
class _LoginPause:
    until: float
    length: float


class LoginAttempts:
    """The logins of an account, or of anybody.

    Where the account was refused it pauses, for that scope: one that is tried again and again gets locked.
    """

    def __init__(self, account: IAccount | None, clock: IReactorTime) -> None:
        self._account = account
        self._clock = clock
        self._pauses: TTLCache[Scope, _LoginPause] = TTLCache(clock, _MOST)

    async def each(self, scope: Scope) -> AsyncIterator[Login]:
        """What to log in with, one after another: who asks for the next says that this one was refused.

        :raises Unavailable: when the account cannot say what.
        """
        if self._account is None:
            yield Login()
            return
        pause = self._pauses.get(scope)
        if pause is not None and self._clock.seconds() < pause.until:
            return
        login = await self._account.login()
        yield login
        self._account.refused(login)
        other = await self._account.login()
        if other != login:
            yield other
        self._pause(scope)

    def accepted(self, scope: Scope) -> None:
        """The account was not refused."""
        self._pauses.drop(scope)

    def _pause(self, scope: Scope) -> None:
        before = self._pauses.get(scope)
        if before is None:
            _log.warn("the mirror's credentials were refused for {scope}", scope=str(scope))
        length = min(LONGEST, before.length * 2) if before else FIRST
        self._pauses.put(scope, _LoginPause(self._clock.seconds() + length, length), length + LONGEST)
