"""What holds for a while."""

from __future__ import annotations

from itertools import islice
from typing import Generic, TypeVar

from twisted.internet.interfaces import IReactorTime

Key = TypeVar("Key")
Value = TypeVar("Value")


class TTLCache(Generic[Key, Value]):
    """Notes, each of which holds for some seconds; where there are very many, the oldest is forgotten.

    What holds no longer goes as others come, the oldest first, so that as many are kept as hold.
    One that is from a time to come, because the clock was set back, does not hold.
    """

    def __init__(self, clock: IReactorTime, most: int) -> None:
        self._clock = clock
        self._most = most
        self._notes: dict[Key, tuple[float, float, Value]] = {}

    def get(self, key: Key) -> Value | None:
        """None where nothing is noted that holds."""
        if key not in self._notes:
            return None
        since, until, value = self._notes[key]
        if since <= self._clock.seconds() < until:
            return value
        del self._notes[key]
        return None

    def put(self, key: Key, value: Value, seconds: float) -> None:
        """Notes it from now on, in place of what was noted."""
        self.drop(key)
        now = self._clock.seconds()
        for oldest in tuple(islice(self._notes, 2)):
            if len(self._notes) >= self._most or self._notes[oldest][1] <= now:
                self.drop(oldest)
        self._notes[key] = now, now + seconds, value

    def drop(self, key: Key) -> None:
        """It holds no longer."""
        self._notes.pop(key, None)
