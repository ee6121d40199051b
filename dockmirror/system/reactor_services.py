"""Timers that keep to their seconds when the machine's clock is set back."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from threading import Event, Thread
from time import monotonic
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

CHECK_INTERVAL = 1.0
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
        while not self._over.wait(CHECK_INTERVAL):
            self.check()

    def _wind(self, lost: float) -> None:
        """A timer that is due before the clock would be where it was has been set since then."""
        was = self._reactor.seconds() + lost
        for timer in self._reactor.getDelayedCalls():
            if timer.getTime() >= was - 2 * CHECK_INTERVAL:
                timer.reset(max(0.0, timer.getTime() - was))


LAG_INTERVAL = 1.0
"""Seconds for which the timer is set."""


class ReactorLagMonitor(Service):
    """Sets a timer again and again, and tells by how many seconds it was late.

    A ``LoopingCall`` would keep to its beat, and call a second too late what was early by a rounding.
    """

    def __init__(self, clock: IReactorTime, tell: Callable[[float], None]) -> None:
        self._clock = clock
        self._tell = tell
        self._timer: IDelayedCall | None = None

    def startService(self) -> None:
        """Called when the reactor is about to run."""
        super().startService()
        self._wind()

    def stopService(self) -> None:
        """Called when it is to end."""
        super().stopService()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wind(self) -> None:
        self._timer = self._clock.callLater(LAG_INTERVAL, self._due, self._clock.seconds() + LAG_INTERVAL)

    def _due(self, due: float) -> None:
        self._tell(max(0.0, self._clock.seconds() - due))
        self._wind()


class GracefulShutdown(Service):
    """Ends the process at a signal; further ones change nothing.

    Twisted's own answer to a second one is a traceback.
    """

    def __init__(
        self, reactor: Any, signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT)
    ) -> None:
        self._reactor = reactor
        self._signals = signals
        self._ending = False

    def startService(self) -> None:
        """The reactor takes the signals for itself when it begins to run: afterwards they are ours."""
        super().startService()
        self._reactor.callWhenRunning(self._take)

    def stop(self) -> None:
        """Lets what runs finish, and ends."""
        if not self._ending:
            self._ending = True
            self._reactor.stop()

    def _take(self) -> None:
        for each in self._signals:
            signal.signal(each, self._signalled)

    def _signalled(self, *_: object) -> None:
        self._reactor.callFromThread(self.stop)
