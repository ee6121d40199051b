"""How late the event loop is: what is late by much has been held up by something that blocks."""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

PERIOD = 1.0
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
        self._timer = self._clock.callLater(PERIOD, self._due, self._clock.seconds() + PERIOD)

    def _due(self, due: float) -> None:
        self._tell(max(0.0, self._clock.seconds() - due))
        self._wind()
