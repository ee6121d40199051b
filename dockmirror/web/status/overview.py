"""The mirror at a glance, all of its processes together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ...status.cache_series import CacheSeries, SeriesSlot
from ...status.pull_counts import PullCounts, RepositoryPulls
from ...status.status_values import WorkerState
from ..readiness import ReadinessState
from ..shared_tables import SharedTables

_MOST = 20
_LASTING = 10.0
"""Seconds for which a look at whether the store can be written will do: the page is drawn each second."""


@frozen
class Status:
    """All that is told.

    :ivar now: in seconds since the epoch.
    :ivar slots: the last hours.
    :ivar popular: the repositories that are pulled most.
    """

    now: float
    state: ReadinessState
    worker_state: WorkerState
    slots: Sequence[SeriesSlot]
    popular: Sequence[RepositoryPulls]


class StatusSource(Protocol):
    """What tells of the mirror, be it one process or several."""

    async def state(self) -> ReadinessState:
        """How it is."""

    async def worker_state(self) -> WorkerState:
        """What it has noted."""


class StatusOverview:
    """Puts together what is known already whenever it is asked.

    :param memory: which all processes share.
    """

    def __init__(self, telling: StatusSource, memory: SharedTables, clock: IReactorTime) -> None:
        self._telling = telling
        self._series = CacheSeries(clock, memory.series)
        self._popular = PullCounts(memory.popular)
        self._clock = clock
        self._state: tuple[float, ReadinessState] | None = None

    async def status(self) -> Status:
        """As of now."""
        state, noted = await self._how(), await self._telling.worker_state()
        return Status(self._clock.seconds(), state, noted, self._series.slots(), self._popular.most(_MOST))

    async def _how(self) -> ReadinessState:
        now = self._clock.seconds()
        if self._state is None or not 0 <= now - self._state[0] < _LASTING:
            self._state = now, await self._telling.state()
        return self._state[1]
