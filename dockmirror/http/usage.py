"""Limits of what clients may use in a window of time, counted in memory that processes share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from struct import Struct

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ..oci.errors import TooManyRequests
from ..system.networks import Address, Network, is_within
from ..system.shared_table import Record, SharedTable, hash_key
from .server_request import ServerRequest


@frozen
class UsageLimits:
    """The most that may be used in a window; None for no limit.

    :ivar window: seconds, counted from the first request.
    """

    requests: int | None
    bytes: int | None
    window: float
    pulls: int | None = None

    def share(self, used: NetworkUsage) -> float:
        """Return the used share of the limit of which most is used: at least 1 if a limit is reached."""
        pairs = (used.requests, self.requests), (used.bytes, self.bytes), (used.pulls, self.pulls)
        return max((amount / limit for amount, limit in pairs if limit), default=0.0)


@frozen
class LimitTerms:
    """The clients to which no limit applies, and where others ask to be one of them.

    :ivar exempt: networks without limits.
    :ivar contact: an address of the operator, for the messages; None for none.
    """

    exempt: tuple[Network, ...] = ()
    contact: str | None = None

    def limited_address(self, request: ServerRequest) -> Address | None:
        """Return the address of a client to which limits apply; None for any other."""
        address = request.admitted_client.address if request.admitted_client else None
        return None if address is None or is_within(address, self.exempt) else address

    def refusal(self, what: str, seconds: int) -> TooManyRequests:
        """Return the error for a client that has used up its limit.

        :param what: the subject of the limit: "your network", say.
        :param seconds: the rest of the window.
        """
        ask = f"; to have the limit raised, see {self.contact}" if self.contact else ""
        return TooManyRequests(
            f"rate limit exceeded for {what}; try again in {seconds} s{ask}", retry_after=str(seconds)
        )


def _slot(label_size: int) -> Struct:
    """Return the record of a key: its hash, end of the window, requests, bytes, pulls, the key's label."""
    return Struct(f"<QdQQQ{label_size}s")


LABEL_SIZE = 24
"""Bytes of the labels of ``LABELLED_COUNTERS_SIZE``."""
COUNTERS_SIZE, LABELLED_COUNTERS_SIZE = (65_536 * _slot(size).size for size in (0, LABEL_SIZE))
"""Bytes of memory for 65,536 keys, without labels and with them."""


@frozen
class NetworkUsage:
    """An amount of what limits are for."""

    requests: int = 0
    bytes: int = 0
    pulls: int = 0


@frozen
class Window:
    """The usage under a key until the window ends, in seconds of the clock."""

    ends: float
    used: NetworkUsage = NetworkUsage()


class RateCounters:
    """Usage by key, in memory that processes share; the key whose window ends first is evicted.

    :param memory: at most ``COUNTERS_SIZE`` bytes, zeroed at first.
    :param label_size: bytes at the start of each key, its label, that are kept beside its hash.
    """

    def __init__(self, memory: memoryview, label_size: int = 0) -> None:
        self._table = SharedTable(memory, _slot(label_size), lambda record: record[1])
        self._label_size = label_size

    def current_window(self, key: bytes, now: float, seconds: float) -> Window:
        """Return the window of a key; one that has ended is replaced by an empty one of so many seconds."""
        return _window_or_new(self._table.find(hash_key(key))[1], now, seconds)

    def add(self, key: bytes, now: float, seconds: float, used: NetworkUsage) -> None:
        """Add to the usage under a key."""
        number = hash_key(key)
        offset, record = self._table.find(number)
        window = _window_or_new(record, now, seconds)
        before = window.used
        self._table.put(
            offset,
            number,
            window.ends,
            before.requests + used.requests,
            before.bytes + used.bytes,
            before.pulls + used.pulls,
            key[: self._label_size],
        )

    def windows(self, now: float) -> Iterator[tuple[bytes, Window]]:
        """Yield the windows that have not ended, with the labels of their keys."""
        for _, ends, requests, sent, pulls, label in self._table.records():
            if now < ends:
                yield label, Window(ends, NetworkUsage(requests, sent, pulls))


def _window_or_new(record: Record | None, now: float, seconds: float) -> Window:
    if record is not None and record[1] - seconds <= now < record[1]:
        return Window(record[1], NetworkUsage(*record[2:5]))
    return Window(now + seconds)


_REFUSALS = Struct("<QQ")
"""Key, number of refused requests."""
REFUSALS_SIZE = 1024 * _REFUSALS.size
"""Bytes of memory for 1,024 keys."""


class RefusalCounters:
    """Refused requests by key, in memory that processes share.

    :param memory: at most ``REFUSALS_SIZE`` bytes, zeroed at first.
    """

    def __init__(self, memory: memoryview) -> None:
        self._table = SharedTable(memory, _REFUSALS, lambda record: record[1])

    def add(self, key: bytes) -> None:
        """Count a refused request."""
        number = hash_key(key)
        offset, record = self._table.find(number)
        self._table.put(offset, number, 1 + (record[1] if record else 0))

    def count(self, key: bytes) -> int:
        """Return the number of refused requests since the memory was zeroed."""
        record = self._table.find(hash_key(key))[1]
        return int(record[1]) if record else 0


class UsageMeter:
    """Measures usage by key against limits, including what running responses have sent so far."""

    def __init__(self, clock: IReactorTime, counters: RateCounters, limits: UsageLimits) -> None:
        self._clock = clock
        self._counters = counters
        self._limits = limits
        self._running: dict[bytes, dict[ServerRequest, int]] = {}
        self._reserved: Counter[bytes] = Counter()

    def remaining_wait(self, key: bytes, is_pull: bool = False) -> int | None:
        """Return the seconds until the window ends if a limit is reached; None if a request may begin.

        :param is_pull: True if the limit of pulls applies.
        """
        for each in self._running.get(key, ()):
            self._count_sent(key, each)
        now, limits = self._clock.seconds(), self._limits
        window = self._counters.current_window(key, now, limits.window)
        is_reached = (
            _is_reached(window.used.requests + self._reserved[key], limits.requests)
            or _is_reached(window.used.bytes, limits.bytes)
            or (is_pull and _is_reached(window.used.pulls, limits.pulls))
        )
        return _seconds_left(window, now) if is_reached else None

    @contextmanager
    def reserved(self, key: bytes) -> Iterator[None]:
        """Have a request take up its part of the limit until it is known if it counts."""
        self._reserved[key] += 1
        try:
            yield
        finally:
            self._reserved[key] -= 1
            if not self._reserved[key]:
                del self._reserved[key]

    def begin(self, key: bytes, request: ServerRequest) -> None:
        """Count a request, and from now on the bytes of its response."""
        self._add(key, NetworkUsage(requests=1))
        self._running.setdefault(key, {})[request] = request.sentLength
        request.notifyFinish().addBoth(lambda _: self._finish(key, request))

    def add_pull(self, key: bytes) -> int | None:
        """Count a pull, or return the seconds until the window ends if the limit of pulls is reached."""
        now = self._clock.seconds()
        window = self._counters.current_window(key, now, self._limits.window)
        if _is_reached(window.used.pulls, self._limits.pulls):
            return _seconds_left(window, now)
        self._add(key, NetworkUsage(pulls=1))
        return None

    def _add(self, key: bytes, used: NetworkUsage) -> None:
        self._counters.add(key, self._clock.seconds(), self._limits.window, used)

    def _count_sent(self, key: bytes, request: ServerRequest) -> None:
        """Count what a running response has sent since the last call."""
        running = self._running[key]
        sent, running[request] = request.sentLength - running[request], request.sentLength
        if sent:
            self._add(key, NetworkUsage(bytes=sent))

    def _finish(self, key: bytes, request: ServerRequest) -> None:
        self._count_sent(key, request)
        del self._running[key][request]
        if not self._running[key]:
            del self._running[key]


def _seconds_left(window: Window, now: float) -> int:
    return max(1, ceil(window.ends - now))


def _is_reached(used: int, limit: int | None) -> bool:
    return limit is not None and used >= limit
