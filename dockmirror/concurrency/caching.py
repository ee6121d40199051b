"""Results that callers share: one run of the same work, and a cache with a time to live."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from itertools import islice
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
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
            Deferred.fromCoroutine(start()).addBoth(self._finish, key)
        return await waiter

    def _finish(self, outcome: Value | Failure, key: Key) -> None:
        for waiter in tuple(self._waiting.pop(key)):
            if not waiter.called:  # another callback may have cancelled it
                waiter.callback(outcome)


class TTLCache(Generic[Key, Value]):
    """Keeps each entry for its number of seconds, and drops the oldest entry when there are too many.

    Expired entries are removed as others are added, the oldest first.  An entry from the future (the clock
    was set back) has expired.

    :param limit: the most entries.
    """

    def __init__(self, clock: IReactorTime, limit: int) -> None:
        self._clock = clock
        self._limit = limit
        self._entries: dict[Key, tuple[float, float, Value]] = {}

    def __bool__(self) -> bool:
        """Return whether there are entries, even if they have expired."""
        return bool(self._entries)

    def get(self, key: Key) -> Value | None:
        """Return the value, or None if there is none or it has expired."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        since, until, value = entry
        if since <= self._clock.seconds() < until:
            return value
        del self._entries[key]
        return None

    def put(self, key: Key, value: Value, seconds: float) -> None:
        """Set the value for the next seconds."""
        self.drop(key)
        now = self._clock.seconds()
        for oldest in tuple(islice(self._entries, 2)):
            if len(self._entries) >= self._limit or self._entries[oldest][1] <= now:
                self.drop(oldest)
        self._entries[key] = now, now + seconds, value

    def drop(self, key: Key) -> None:
        self._entries.pop(key, None)
