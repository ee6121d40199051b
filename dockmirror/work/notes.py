"""What holds for a while."""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.internet.interfaces import IReactorTime

Key = TypeVar("Key")
Value = TypeVar("Value")


class Notes(Generic[Key, Value]):
    """Notes, each of which holds for some seconds; where there are very many, the oldest is forgotten.

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
        if len(self._notes) >= self._most:
            self.drop(next(iter(self._notes)))
        now = self._clock.seconds()
        self._notes[key] = now, now + seconds, value

    def drop(self, key: Key) -> None:
        """It holds no longer."""
        self._notes.pop(key, None)
