"""Whether the mirror can do its work, and how well."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.interfaces import IReactorTime

from .wire import Site

PATIENCE = 2.0
"""Seconds that a store has to prove that it can be written."""


@frozen
class State:
    """How the mirror is.

    :ivar ready: whether clients should be sent here.
    :ivar status: ``ready``, ``degraded``, ``stopping``, or ``not listening``.
    :ivar store: ``writable``, ``none``, or why it cannot be written.
    """

    ready: bool
    status: str
    store: str


@frozen
class Readiness:
    """Looks whenever it is asked.

    :ivar try_writing: writes something to the store, or raises OSError; None where there is no store.
    """

    site: Site
    clock: IReactorTime
    try_writing: Callable[[], Coroutine[Any, Any, None]] | None = None

    async def state(self) -> State:
        """The mirror without a store that can be written still relays: it is degraded, and ready."""
        store = await self._store()
        if self.site.connections.draining:
            return State(False, "stopping", store)
        if not self.site.numPorts:
            return State(False, "not listening", store)
        return State(True, "ready" if store in ("writable", "none") else "degraded", store)

    async def _store(self) -> str:
        if self.try_writing is None:
            return "none"
        try:
            await Deferred.fromCoroutine(self.try_writing()).addTimeout(PATIENCE, self.clock)
        except TookTooLong:
            return f"cannot be written: nothing came of it within {PATIENCE:g} s"
        except OSError as error:
            return f"cannot be written: {error.strerror or error}"
        return "writable"
