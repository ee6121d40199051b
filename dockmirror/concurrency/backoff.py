"""Exponential backoff: pauses after failures, longer each time."""

from __future__ import annotations

from typing import Generic, TypeVar

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from .ttl_cache import TTLCache

Key = TypeVar("Key")
Reason = TypeVar("Reason")

_MOST = 10_000


@frozen
class Pause(Generic[Reason]):
    """A pause after a failure, in the clock's seconds."""

    until: float
    length: float
    reason: Reason


class Backoff(Generic[Key, Reason]):
    """Pauses by key: each failure after a pause makes the next one longer, a success ends them.

    Failures during a pause belong to attempts from before it began: they restart it and do not lengthen it.
    After a pause and the longest one have passed without a failure, the pauses begin with the first again.

    :param first: seconds of the pause after the first failure.
    :param longest: seconds that no pause exceeds.
    :param factor: how much longer each pause is than the one before.
    """

    def __init__(self, clock: IReactorTime, first: float, longest: float, factor: float = 2.0) -> None:
        self._clock = clock
        self._first = first
        self._longest = longest
        self._factor = factor
        self._pauses: TTLCache[Key, Pause[Reason]] = TTLCache(clock, _MOST)

    def pause(self, key: Key) -> Pause[Reason] | None:
        """Return the pause that lasts now, or None."""
        last = self._pauses.get(key)
        return last if last is not None and self._clock.seconds() < last.until else None

    def failed(self, key: Key, reason: Reason, seconds: float | None = None) -> float:
        """Begin a pause, and return its length.

        :param seconds: the length, where the other side has named one.
        """
        last, now = self._pauses.get(key), self._clock.seconds()
        if seconds is not None:
            length = seconds
        elif last is None:
            length = self._first
        else:
            length = last.length if now < last.until else min(self._longest, last.length * self._factor)
        self._pauses.put(key, Pause(now + length, length, reason), length + self._longest)
        return length

    def succeeded(self, key: Key) -> None:
        """End the pause, and begin with the first one after the next failure."""
        self._pauses.drop(key)
