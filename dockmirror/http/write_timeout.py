"""A client that takes nothing of what is sent to it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class WriteTimeout:
    """Is ended when it has lasted for too long.

    One call for each time that a client takes nothing would cost those that are fast: one that is pending
    stands for all of them.

    :param seconds: how long it may last.
    """

    def __init__(self, seconds: float, end: Callable[[], object], clock: IReactorTime) -> None:
        self._seconds = seconds
        self._end = end
        self._clock = clock
        self._since: float | None = None
        self._look: IDelayedCall | None = None

    def begin(self) -> None:
        """From now on the client takes nothing."""
        self._since = self._clock.seconds()
        if self._look is None:
            self._look = self._clock.callLater(self._seconds, self._end_if_long)

    def over(self) -> None:
        """The client has taken something."""
        self._since = None

    def forget(self) -> None:
        """The client has gone."""
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _end_if_long(self) -> None:
        self._look = None
        if self._since is None:
            return
        left = self._since + self._seconds - self._clock.seconds()
        if left <= 0:
            self._end()
        else:
            self._look = self._clock.callLater(left, self._end_if_long)
