"""Timers that keep to their seconds when the machine's clock is set back."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread
from time import monotonic
from typing import Any

from twisted.application.service import Service

PERIOD = 1.0
"""Seconds between two looks at the clock."""
_SLACK = 1.0
"""Seconds by which a clock may be set back without anybody minding."""


class ClockStepGuard(Service):
    """Winds the reactor's timers anew when its clock has been set back.

    The reactor goes by the time of day: set back by an hour, it would have every pause and every deadline
    last an hour longer.  A clock that is set forward ends them early, which a client's own retry mends.

    :param reactor: provides ``IReactorTime`` and ``IReactorFromThreads``; a thread looks at its clock, since
        no timer of its own would.
    :param steady: a clock that nobody sets.
    """

    def __init__(self, reactor: Any, steady: Callable[[], float] = monotonic) -> None:
        self._reactor = reactor
        self._steady = steady
        self._over = Event()
        self._ahead = 0.0

    def startService(self) -> None:
        """Called when the reactor is about to run."""
        super().startService()
        self._over.clear()
        self._ahead = self._reactor.seconds() - self._steady()
        Thread(target=self._watch, name="clock", daemon=True).start()

    def stopService(self) -> None:
        """Called when it is to end."""
        super().stopService()
        self._over.set()

    def check(self) -> None:
        """Sees whether the clock has been set back since the last look."""
        ahead = self._reactor.seconds() - self._steady()
        lost, self._ahead = self._ahead - ahead, ahead
        if lost > _SLACK:
            self._reactor.callFromThread(self._wind, lost)

    def _watch(self) -> None:
        while not self._over.wait(PERIOD):
            self.check()

    def _wind(self, lost: float) -> None:
        """A timer that is due before the clock would be where it was has been set since then."""
        was = self._reactor.seconds() + lost
        for timer in self._reactor.getDelayedCalls():
            if timer.getTime() >= was - 2 * PERIOD:
                timer.reset(max(0.0, timer.getTime() - was))
