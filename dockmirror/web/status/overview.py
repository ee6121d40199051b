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

    async def status(self) -> Status:
        """As of now."""
        state, noted = await self._telling.state(), await self._telling.noted()
        return Status(self._clock.seconds(), state, noted, self._series.slots(), self._popular.most(_MOST))
