"""The mirror at a glance, all of its processes together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ...status.popular import Popular, Pulled
from ...status.series import Series, Slot
from ...status.values import Noted
from ..memory import Memory
from ..readiness import State

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
    state: State
    noted: Noted
    slots: Sequence[Slot]
    popular: Sequence[Pulled]


class Telling(Protocol):
    """What tells of the mirror, be it one process or several."""

    async def state(self) -> State:
        """How it is."""

    async def noted(self) -> Noted:
        """What it has noted."""


class Overview:
    """Puts together what is known already whenever it is asked.

    :param memory: which all processes share.
    """

    def __init__(self, telling: Telling, memory: Memory, clock: IReactorTime) -> None:
        self._telling = telling
        self._series = Series(clock, memory.series)
        self._popular = Popular(memory.popular)
        self._clock = clock
        self._state: tuple[float, State] | None = None

    async def status(self) -> Status:
        """As of now."""
        state, noted = await self._how(), await self._telling.noted()
        return Status(self._clock.seconds(), state, noted, self._series.slots(), self._popular.most(_MOST))

    async def _how(self) -> State:
        now = self._clock.seconds()
        if self._state is None or not 0 <= now - self._state[0] < _LASTING:
            self._state = now, await self._telling.state()
        return self._state[1]
