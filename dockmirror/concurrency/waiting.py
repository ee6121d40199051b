"""Waits for several coroutines, and for changes."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults

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


def run_to_end(work: Coroutine[Any, Any, T]) -> Deferred[T]:
    """Run a coroutine that goes on if the wait for it is cancelled."""
    waiting: Deferred[T] = Deferred()
    running = Deferred.fromCoroutine(work)
    running.addBoth(lambda outcome: None if waiting.called else waiting.callback(outcome))
    return waiting


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
