"""Limit the requests and bytes that each client network may use in a window of time."""

from __future__ import annotations

from math import ceil
from struct import Struct

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource

from ..http.server_request import ServerRequest
from ..oci.errors import TooManyRequests
from ..system.networks import Network, client_network
from ..system.shared_table import Record, SharedTable, hash_key
from .filter import RequestFilter


class RateLimiter(RequestFilter):
    """Rejects clients that have used up their limit, until their window ends.

    A response that has begun is finished; its bytes count against later requests.

    :param counters: the usage of each network.
    :param requests: requests that a network may make in a window; None for no limit.
    :param bytes: bytes of bodies that a network may receive in a window; None for no limit.
    :param window: seconds, counted from a network's first request.
    """

    def __init__(
        self,
        resource: IResource,
        clock: IReactorTime,
        counters: RateCounters,
        requests: int | None,
        bytes: int | None,
        window: float,
    ) -> None:
        super().__init__(resource)
        self._clock = clock
        self._counters = counters
        self._requests = requests
        self._bytes = bytes
        self._window = window
        self._running: dict[Network, dict[ServerRequest, int]] = {}

    def check(self, request: ServerRequest) -> None:
        """:raises TooManyRequests: with the seconds left of the window."""
        address = request.admitted_client.address if request.admitted_client else None
        if address is None:
            return
        network = client_network(address)
        for each in self._running.get(network, ()):
            self._count_sent(network, each)
        now = self._clock.seconds()
        window = self._counters.current_window(network, now, self._window)
        if _is_reached(window.requests, self._requests) or _is_reached(window.bytes, self._bytes):
            seconds = max(1, ceil(window.began + self._window - now))
            raise TooManyRequests(
                f"rate limit exceeded for your network; try again in {seconds} s", retry_after=str(seconds)
            )
        self._counters.add(network, now, self._window, requests=1)
        self._running.setdefault(network, {})[request] = 0
        request.notifyFinish().addBoth(lambda _: self._finish(network, request))

    def _count_sent(self, network: Network, request: ServerRequest) -> None:
        """Count what a running response has sent since the last call."""
        running = self._running[network]
        sent, running[request] = request.sentLength - running[request], request.sentLength
        if sent:
            self._counters.add(network, self._clock.seconds(), self._window, bytes=sent)

    def _finish(self, network: Network, request: ServerRequest) -> None:
        self._count_sent(network, request)
        del self._running[network][request]
        if not self._running[network]:
            del self._running[network]


def _is_reached(used: int, limit: int | None) -> bool:
    return limit is not None and used >= limit


_SLOT = Struct("<QdQQ")
"""Network key, start of the window, requests, bytes."""
COUNTERS_SIZE = 65_536 * _SLOT.size
"""Bytes of memory for 65,536 networks."""


@frozen
class WindowCount:
    """The usage of a network since its window began, in seconds of the clock."""

    began: float
    requests: int
    bytes: int


class RateCounters:
    """Usage per network, in memory that processes share; the network with the oldest window is evicted.

    :param memory: at most ``COUNTERS_SIZE`` bytes, zeroed at first.
    """

    def __init__(self, memory: memoryview) -> None:
        self._table = SharedTable(memory, _SLOT, lambda record: record[1])

    def current_window(self, network: Network, now: float, window: float) -> WindowCount:
        """Return the network's usage; a window that has ended is replaced by an empty one."""
        return _window_or_new(self._table.find(_key(network))[1], now, window)

    def add(self, network: Network, now: float, window: float, requests: int = 0, bytes: int = 0) -> None:
        key = _key(network)
        offset, record = self._table.find(key)
        usage = _window_or_new(record, now, window)
        self._table.put(offset, key, usage.began, usage.requests + requests, usage.bytes + bytes)


def _window_or_new(record: Record | None, now: float, window: float) -> WindowCount:
    if record is not None and record[1] <= now < record[1] + window:
        return WindowCount(*record[1:])
    return WindowCount(now, 0, 0)


def _key(network: Network) -> int:
    return hash_key(network.network_address.packed)
