"""Determine whether the mirror is ready to serve, and whether its store works."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.interfaces import IReactorTime

from ..concurrency.coroutines import gather
from ..http.server import HttpSite

STORE_TIMEOUT = 2.0
"""Seconds that a check of the store may take."""


@frozen
class ReadinessState:
    """The readiness of the mirror.

    :ivar ready: True if clients should be sent here.
    :ivar status: ``ready``, ``degraded``, ``stopping``, or ``not listening``.
    :ivar store: ``writable``, ``none``, or a description of the failure.
    """

    ready: bool
    status: str
    store: str


@frozen
class StoreCheck:
    """A check of one part of the store.

    :ivar failing: describes the failure, such as "the disk cannot be written".
    :ivar run: raises OSError when this part does not work.
    """

    failing: str
    run: Callable[[], Coroutine[Any, Any, None]]


@frozen
class ReadinessCheck:
    """Checks readiness on each call.

    :ivar checks: of the store, the first that of its disk; empty without a store.
    """

    site: HttpSite
    clock: IReactorTime
    checks: Sequence[StoreCheck] = ()

    async def state(self) -> ReadinessState:
        """Return the current state; a mirror whose store fails still relays, so it is degraded but ready."""
        store = await describe_store(self.checks, self.clock)
        if self.site.connections.draining:
            return ReadinessState(False, "stopping", store)
        if not self.site.numPorts:
            return ReadinessState(False, "not listening", store)
        return ReadinessState(True, "ready" if store in ("writable", "none") else "degraded", store)


async def describe_store(checks: Sequence[StoreCheck], clock: IReactorTime) -> str:
    """Return ``writable``, ``none`` without checks, or a description of the first failure.

    The checks run at the same time, so that all of them take ``STORE_TIMEOUT`` at most.
    """
    failures = await gather(_find_failure(check, clock) for check in checks)
    return next(filter(None, failures), "writable" if checks else "none")


async def _find_failure(check: StoreCheck, clock: IReactorTime) -> str:
    try:
        await Deferred.fromCoroutine(check.run()).addTimeout(STORE_TIMEOUT, clock)
    except TookTooLong:
        return f"{check.failing}: no answer within {STORE_TIMEOUT:g} s"
    except OSError as error:
        return f"{check.failing}: {error.strerror or error}"
    return ""
