"""The number of connections over which a blob is fetched: a fixed one, or as many as make it faster."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

WINDOW = 0.5
"""Seconds over which rates are compared; after each change as many pass unmeasured."""
MIN_BYTES = 1024 * 1024
"""Bytes without which a window says nothing."""
MIN_CHANGE = 1.3
"""Ratio of the open connections of two windows from which on they are compared."""
MIN_REWARD = 0.3
"""Share of its own rate that an additional connection must add."""
HOLD = 300.0
"""Seconds until the number is tried again after it was found to be too high."""


class Line(Protocol):
    """The connections to an upstream, which downloads report on."""

    def segments(self) -> int:
        """Return the number of connections that a blob may be fetched over now."""

    def record_open(self) -> None:
        """Record that a response has begun."""

    def record_close(self) -> None:
        """Record that a response has ended."""

    def record_bytes(self, count: int) -> None:
        """Record bytes that have arrived."""


class FixedSegments:
    """A number that the operator has set."""

    def __init__(self, number: int) -> None:
        self.number = number

    def segments(self) -> int:
        return self.number

    def record_open(self) -> None:
        pass

    def record_close(self) -> None:
        pass

    def record_bytes(self, count: int) -> None:
        pass


@frozen
class _Rate:
    """The mean number of open connections in a window, and the bytes per second of all of them."""

    connections: float
    bytes: float


class AdaptiveSegments:
    """Doubles the number while additional connections bring more, and halves it when they do not.

    More connections help where each of them is slow (a long way, a limit for each connection), and not where
    one connection fills the line.

    :param connections: the upstream's limit, of which all blobs together use at most half.
    :param most: the most connections for one blob.
    """

    def __init__(self, clock: IReactorTime, connections: int, most: int) -> None:
        self._clock = clock
        self._most = most
        self._limit = connections // 2
        self._segments = 1
        self._open = 0
        self._before: _Rate | None = None
        self._held_until = 0.0
        self._begin_window(0.0)

    def segments(self) -> int:
        return max(1, min(self._segments, self._limit - self._open + 1))

    def record_open(self) -> None:
        self._account()
        self._open += 1

    def record_close(self) -> None:
        self._account()
        self._open -= 1

    def record_bytes(self, count: int) -> None:
        self._account()
        if self._last < self._begins:
            return
        self._bytes += count
        busy = self._last - self._begins - self._idle
        if busy >= WINDOW and self._bytes >= MIN_BYTES:
            self._decide(_Rate(self._connection_seconds / busy, self._bytes / busy))

    def _begin_window(self, delay: float) -> None:
        self._last = self._clock.seconds()
        self._begins = self._last + delay
        self._connection_seconds = self._idle = 0.0
        self._bytes = 0

    def _account(self) -> None:
        now = self._clock.seconds()
        elapsed = max(0.0, now - max(self._last, self._begins))
        self._connection_seconds += elapsed * self._open
        self._idle += 0.0 if self._open else elapsed
        self._last = now

    def _decide(self, rate: _Rate) -> None:
        before, now = self._before, self._last
        if before is None:
            if now >= self._held_until:
                self._before = rate
                self._change(2 * self._segments)
            else:
                self._begin_window(0.0)
        elif not 1 / MIN_CHANGE < rate.connections / before.connections < MIN_CHANGE:
            if _is_rewarded(before, rate):
                self._before = rate
                self._change(2 * self._segments)
            else:
                self._before, self._held_until = None, now + HOLD
                self._change(self._segments // 2)
        else:
            self._begin_window(0.0)

    def _change(self, segments: int) -> None:
        self._segments = max(1, min(segments, self._most))
        self._begin_window(WINDOW)


def _is_rewarded(before: _Rate, after: _Rate) -> bool:
    """Return whether the additional connections added enough of what each had before."""
    added = after.connections / before.connections - 1
    return (after.bytes / before.bytes - 1) / added >= MIN_REWARD
