"""The readiness and the status of the mirror, of all of its processes together."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.interfaces import IReactorTime

from ...http.server import HttpSite
from ...status.cache_series import CacheSeries, PullCounts, RepositoryPulls, SeriesSlot
from ...status.status_values import WorkerState
from ..shared_tables import SharedTables

STORE_TIMEOUT = 2.0
"""Seconds that a check of the store may take."""


@frozen
class ReadinessState:
    """The readiness of the mirror.

    :ivar ready: whether clients should be sent here.
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

    :ivar checks: of the store; empty without a store.
    """

    site: HttpSite
    clock: IReactorTime
    checks: Sequence[StoreCheck] = ()

    async def state(self) -> ReadinessState:
        """Return the current state; a mirror whose store fails still relays, so it is degraded but ready."""
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


_MOST = 20
_STATE_TTL = 10.0
"""Seconds for which the result of a store check is reused: the page is reloaded every second."""


@frozen
class Status:
    """Everything that the status page shows.

    :ivar now: in seconds since the epoch.
    :ivar slots: cache figures of the last hours.
    :ivar popular: the repositories that are pulled most.
    """

    now: float
    state: ReadinessState
    worker_state: WorkerState
    slots: Sequence[SeriesSlot]
    popular: Sequence[RepositoryPulls]


class StatusSource(Protocol):
    """The state of the mirror, from one process or several."""

    async def state(self) -> ReadinessState: ...

    async def worker_state(self) -> WorkerState: ...


class StatusOverview:
    """Collects the status from the processes and from shared memory.

    :param memory: shared by all processes.
    """

    def __init__(self, source: StatusSource, tables: SharedTables, clock: IReactorTime) -> None:
        self._source = source
        self._series = CacheSeries(clock, tables.series)
        self._popular = PullCounts(tables.pull_counts)
        self._clock = clock
        self._state: tuple[float, ReadinessState] | None = None

    async def status(self) -> Status:
        state, workers = await self._readiness(), await self._source.worker_state()
        return Status(
            self._clock.seconds(), state, workers, self._series.slots(), self._popular.list_most(_MOST)
        )

    async def _readiness(self) -> ReadinessState:
        now = self._clock.seconds()
        if self._state is None or not 0 <= now - self._state[0] < _STATE_TTL:
            self._state = now, await self._source.state()
        return self._state[1]
