"""The status of the mirror, of all of its processes together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ...status.cache_series import CacheSeries, PullCounts, RepositoryPulls, SeriesSlot
from ...status.status_values import WorkerState
from ..readiness import ReadinessState
from ..shared_tables import SharedTables

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
