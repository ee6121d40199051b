"""The status of the mirror, of all of its processes together."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ...status.status_values import WorkerState
from ..readiness import ReadinessState
from .history_summary import HistorySource, HistorySummary

_STATE_TTL = 10.0
"""Seconds for which the result of a store check is reused: the page is refreshed every second."""


@frozen
class Status:
    """Everything that the status page shows.

    :ivar now: in seconds since the epoch.
    :ivar history: None if the mirror keeps no history.
    :ivar started: when the mirror started.
    """

    now: float
    state: ReadinessState
    worker_state: WorkerState
    history: HistorySummary | None
    version: str
    started: float


class StatusSource(Protocol):
    """The state of the mirror, from one process or several."""

    async def state(self) -> ReadinessState: ...

    async def worker_state(self) -> WorkerState: ...


class StatusOverview:
    """Collects the status from the processes and from the history."""

    def __init__(
        self,
        source: StatusSource,
        history: HistorySource | None,
        version: str,
        started: float,
        clock: IReactorTime,
    ) -> None:
        self._source = source
        self._history = history
        self._version = version
        self._clock = clock
        self._started = started
        self._state: tuple[float, ReadinessState] | None = None

    async def status(self) -> Status:
        return Status(
            self._clock.seconds(),
            await self._readiness(),
            await self._source.worker_state(),
            await self._history.summary() if self._history else None,
            self._version,
            self._started,
        )

    async def _readiness(self) -> ReadinessState:
        now = self._clock.seconds()
        if self._state is None or not 0 <= now - self._state[0] < _STATE_TTL:
            self._state = now, await self._source.state()
        return self._state[1]
