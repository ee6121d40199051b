"""Threads that are none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


async def inline(call: Callable[[], T], /) -> T:
    """Runs the call at once."""
    return call()


class HeldThreads:
    """Calls that run when the test lets them."""

    def __init__(self) -> None:
        self._held: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]:
        """Holds the call."""
        done: Deferred[T] = Deferred()
        self._held.append((call, done))
        return done

    @property
    def held(self) -> int:
        """How many calls wait."""
        return len(self._held)

    def run(self) -> None:
        """Runs the call that has waited longest."""
        call, done = self._held.pop(0)
        try:
            result = call()
        except Exception as error:
            done.errback(error)
        else:
            done.callback(result)

    def run_last(self) -> None:
        """Runs the call that came last."""
        self._held.insert(0, self._held.pop())
        self.run()

    def fail(self, error: Exception) -> None:
        """Has the call fail that has waited longest."""
        _, done = self._held.pop(0)
        done.errback(error)
