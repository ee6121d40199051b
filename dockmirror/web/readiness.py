"""Whether the mirror can do its work, and how well."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.interfaces import IReactorTime

from ..http.server import HttpSite

STORE_TIMEOUT = 2.0
"""Seconds that a check of the store may take."""


@frozen
class ReadinessState:
    """How the mirror is.

    :ivar ready: whether clients should be sent here.
    :ivar status: ``ready``, ``degraded``, ``stopping``, or ``not listening``.
    :ivar store: ``writable``, ``none``, or what of it fails and why.
    """

    ready: bool
    status: str
    store: str


@frozen
class StoreCheck:
    """A part of the store, and a way to find out whether it works.

    :ivar failing: says that it does not, such as "the disk cannot be written".
    :ivar run: raises OSError when it does not.
    """

    failing: str
    run: Callable[[], Coroutine[Any, Any, None]]


@frozen
class ReadinessCheck:
    """Looks whenever it is asked.

    :ivar checks: of the store; none where there is no store.
    """

    site: HttpSite
    clock: IReactorTime
    checks: Sequence[StoreCheck] = ()

    async def state(self) -> ReadinessState:
        """A mirror whose store fails still relays: it is degraded, and ready."""
        store = await self._store()
        if self.site.connections.draining:
            return ReadinessState(False, "stopping", store)
        if not self.site.numPorts:
            return ReadinessState(False, "not listening", store)
        return ReadinessState(True, "ready" if store in ("writable", "none") else "degraded", store)

    async def _store(self) -> str:
        for check in self.checks:
            try:
                await Deferred.fromCoroutine(check.run()).addTimeout(STORE_TIMEOUT, self.clock)
            except TookTooLong:
                return f"{check.failing}: no answer within {STORE_TIMEOUT:g} s"
            except OSError as error:
                return f"{check.failing}: {error.strerror or error}"
        return "writable" if self.checks else "none"
