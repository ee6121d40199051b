"""How much a client may have in a while."""

from __future__ import annotations

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
    """Refuses clients who have had enough, until their window has passed.

    A response that has begun goes on: what it sends counts for the requests that follow.

    :param ledger: what each network has had.
    :param requests: how many a network may make in a window; None for any number.
    :param bytes: how many bytes of bodies it may be sent in a window; None for any number.
    :param window: seconds, from a network's first request on.
    """

    def __init__(
        self,
        resource: IResource,
        clock: IReactorTime,
        ledger: RateCounters,
        requests: int | None,
        bytes: int | None,
        window: float,
    ) -> None:
        super().__init__(resource)
        self._clock = clock
        self._ledger = ledger
        self._requests = requests
        self._bytes = bytes
        self._window = window
        self._running: dict[Network, dict[ServerRequest, int]] = {}

    def check(self, request: ServerRequest) -> None:
        """See ``RequestFilter``.

        :raises TooManyRequests: with the seconds that are left of the window.
        """
        address = request.admitted_client.address if request.admitted_client else None
        if address is None:
            return
        network = client_network(address)
        for each in self._running.get(network, ()):
            self._note(network, each)
        now = self._clock.seconds()
        spent = self._ledger.current_window(network, now, self._window)
        if _reached(spent.requests, self._requests) or _reached(spent.bytes, self._bytes):
            left = spent.began + self._window - now
            raise TooManyRequests(
                "your network has had as much of this mirror as it may have for now",
                retry_after=str(max(1, -int(-left // 1))),
            )
        self._ledger.add(network, now, self._window, requests=1)
        self._running.setdefault(network, {})[request] = 0
        request.notifyFinish().addBoth(lambda _: self._ended(network, request))

    def _note(self, network: Network, request: ServerRequest) -> None:
        """What it has sent since it was last noted was sent before now."""
        running = self._running[network]
        sent, running[request] = request.sentLength - running[request], request.sentLength
        if sent:
            self._ledger.add(network, self._clock.seconds(), self._window, bytes=sent)

    def _ended(self, network: Network, request: ServerRequest) -> None:
        self._note(network, request)
        del self._running[network][request]
        if not self._running[network]:
            del self._running[network]


def _reached(had: int, most: int | None) -> bool:
    return most is not None and had >= most


_SLOT = Struct("<QdQQ")
"""Whose it is, when its window began, requests, bytes."""
COUNTERS_SIZE = 65_536 * _SLOT.size
"""Bytes of memory for so many networks at a time."""


@frozen
class WindowCount:
    """What a network has had since its window began, in seconds of the clock."""

    began: float
    requests: int
    bytes: int


class RateCounters:
    """A table of networks; where there are too many those are forgotten whose window began first.

    :param memory: of ``COUNTERS_SIZE`` bytes or fewer, zero at first.
    """

    def __init__(self, memory: memoryview) -> None:
        self._slots = SharedTable(memory, _SLOT, lambda record: record[1])

    def current_window(self, network: Network, now: float, window: float) -> WindowCount:
        """What it has had; nothing where its window is over, which begins anew then."""
        return _lasting(self._slots.find(_key(network))[1], now, window)

    def add(self, network: Network, now: float, window: float, requests: int = 0, bytes: int = 0) -> None:
        """It has had so much more."""
        key = _key(network)
        place, record = self._slots.find(key)
        spent = _lasting(record, now, window)
        self._slots.put(place, key, spent.began, spent.requests + requests, spent.bytes + bytes)


def _lasting(record: Record | None, now: float, window: float) -> WindowCount:
    if record is not None and record[1] <= now < record[1] + window:
        return WindowCount(*record[1:])
    return WindowCount(now, 0, 0)


def _key(network: Network) -> int:
    return hash_key(network.network_address.packed)
