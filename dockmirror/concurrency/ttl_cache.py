"""A cache with a time to live for each entry."""

from __future__ import annotations

from itertools import islice
from typing import Generic, TypeVar

from twisted.internet.interfaces import IReactorTime

Key = TypeVar("Key")
Value = TypeVar("Value")


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

    def get(self, key: Key) -> Value | None:
        """Return the value, or None if there is none or it has expired."""
        if key not in self._entries:
            return None
        since, until, value = self._entries[key]
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
