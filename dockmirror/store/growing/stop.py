"""What ends a long work that waits, from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred

T = TypeVar("T")


class Forsaken(Exception):
    """Nobody wants it any more."""


class Stop:
    """Interrupts waiting, now or the next time, with a reason; then that is forgotten."""

    def __init__(self) -> None:
        self._reason: Exception | None = None
        self._waiting: Deferred[Any] | None = None

    @property
    def called_off(self) -> bool:
        """Whether the next wait will raise."""
        return self._reason is not None

    def call_off(self, reason: Exception) -> None:
        """Ends what is waited for; the first reason counts."""
        if self._reason is None:
            self._reason = reason
            if self._waiting is not None:
                self._waiting.cancel()

    def check(self) -> None:
        """:raises Exception: the reason, where there is one."""
        reason, self._reason = self._reason, None
        if reason is not None:
            raise reason

    async def wait(self, begin: Callable[[], Deferred[T]]) -> T:
        """What comes of it, unless it is stopped.

        :raises Exception: the reason; it was cancelled then, or not even begun.
        """
        self.check()
        waiting = begin()
        if self.called_off:  # from within
            waiting.cancel()
        self._waiting = waiting
        try:
            return await waiting
        except CancelledError:
            self.check()
            raise
        finally:
            self._waiting = None
