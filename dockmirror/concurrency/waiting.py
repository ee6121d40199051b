"""Waits: for several coroutines, for changes, and those that are cancelled or ended from outside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.python.failure import Failure

T = TypeVar("T")


async def gather(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines at the same time, and return their results in order.

    The first error, and a cancellation, cancels those that still run, and is raised.
    """
    running = [Deferred.fromCoroutine(each) for each in coroutines]
    try:
        return await gatherResults(running, consumeErrors=True)
    except FirstError as error:
        for each in running:
            each.cancel()
        error.subFailure.raiseException()


def shield(work: Awaitable[T], late: Callable[[T], None] = lambda _: None) -> Deferred[T]:
    """Wait for work that goes on if the wait for it is cancelled.

    Cancelling the result ends the wait at once; ``late`` is called with the work's result when that arrives.
    """
    waiting: Deferred[T] = Deferred()

    def forward(outcome: T | Failure) -> None:
        if not waiting.called:
            waiting.callback(outcome)
        elif not isinstance(outcome, Failure):
            late(outcome)

    Deferred.fromCoroutine(_await(work)).addBoth(forward)
    return waiting


async def _await(work: Awaitable[T]) -> T:
    return await work


class Changes:
    """Wakes those who wait for a change."""

    def __init__(self) -> None:
        self._waiting: dict[Deferred[None], None] = {}

    def next(self) -> Deferred[None]:
        """Return a Deferred that fires at the next change."""
        waiting: Deferred[None] = Deferred(lambda waiting: self._waiting.pop(waiting, None))
        self._waiting[waiting] = None
        return waiting

    def notify(self) -> None:
        """Wake all who wait now."""
        waiting, self._waiting = self._waiting, {}
        for each in waiting:
            if not each.called:  # one may have made another leave
                each.callback(None)


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
