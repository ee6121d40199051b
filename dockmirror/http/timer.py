"""What is done at a time, unless something else comes first."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Timer:
    """One thing at a time: what is set takes the place of what was."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._call: IDelayedCall | None = None

    def set(self, seconds: float, then: Callable[[], object]) -> None:
        """Does that in so many seconds."""
        self.clear()
        self._call = self._clock.callLater(seconds, then)

    def clear(self) -> None:
        """Nothing is done."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
