"""Single flight: concurrent callers share one run of the same work."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

Key = TypeVar("Key")
Value = TypeVar("Value")


class SingleFlight(Generic[Key, Value]):
    """Runs the work of a key once at a time; callers that come while it runs share its outcome.

    The work goes on if a caller is cancelled.
    """

    def __init__(self) -> None:
        self._waiting: dict[Key, list[Deferred[Value]]] = {}

    async def get(self, key: Key, start: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        """Return the outcome of the work that runs for this key, or start it.

        :raises Exception: the work's exception, for every caller.
        """
        waiter: Deferred[Value] = Deferred(lambda cancelled: waiters.remove(cancelled))
        is_first = key not in self._waiting
        waiters = self._waiting.setdefault(key, [])
        waiters.append(waiter)
        if is_first:
            Deferred.fromCoroutine(start()).addBoth(self._done, key)
        return await waiter

    def _done(self, outcome: Value | Failure, key: Key) -> None:
        for waiter in tuple(self._waiting.pop(key)):
            if not waiter.called:  # another callback may have cancelled it
                waiter.callback(outcome)
