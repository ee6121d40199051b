"""Reading behind somebody else's fill."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from .arrival import Arrival
from .partial import Partial, Standing
from .stop import Stop

POLL = 0.03
"""Seconds between two looks at a file that another process fills."""


class Behind:
    """Learns by looking what becomes of a growing file that is locked elsewhere."""

    def __init__(self, arrival: Arrival, partial: Partial, stop: Stop, clock: IReactorTime) -> None:
        self._arrival = arrival
        self._partial = partial
        self._stop = stop
        self._clock = clock

    async def follow(self) -> Standing:
        """How the file stands when it is no longer another's.

        :raises Forsaken: when nobody reads it any more.
        """
        while (standing := self._look()) is Standing.THEIRS:
            await self._stop.wait(lambda: deferLater(self._clock, POLL))
        return standing

    def _look(self) -> Standing:
        """What was told is asked for first: it is this file's, if the file has its name still."""
        told = self._partial.told()
        standing = self._partial.standing()
        length = self._partial.length()
        if length != self._arrival.length:
            self._arrival.grew(length)
        if standing is Standing.WHOLE:
            self._verify()
        elif standing is Standing.THEIRS and told is not None:
            if not self._arrival.answered or told.size != self._arrival.size:
                self._arrival.answer(told.size)
            if told.verified and told.size == length:
                self._verify()
        return standing

    def _verify(self) -> None:
        if not self._arrival.verified:
            self._arrival.verify()
