"""The end of the mirror, which is asked for once."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

from twisted.application.service import Service


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
