"""Waits that are ended from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred

T = TypeVar("T")


class Interrupt:
    """Ends one wait from outside, with a reason: the current one, or else the next one."""

    def __init__(self) -> None:
        self.reason: Exception | None = None
        self._waiting: Deferred[Any] | None = None

    def set(self, reason: Exception) -> None:
        """End the wait; the first reason counts."""
        if self.reason is None:
            self.reason = reason
            if self._waiting is not None:
                self._waiting.cancel()

    def check(self) -> None:
        """Raise the reason, if there is one, and forget it."""
        reason, self.reason = self.reason, None
        if reason is not None:
            raise reason

    async def wait(self, begin: Callable[[], Deferred[T]]) -> T:
        """Return the result of a wait; interrupted, cancel it or do not begin it, and raise the reason."""
        self.check()
        self._waiting = waiting = begin()
        try:
            if self.reason is not None:  # interrupted as it began
                waiting.cancel()
            return await waiting
        except CancelledError:
            self.check()
            raise
        finally:
            self._waiting = None
