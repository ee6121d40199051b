"""How much a client may have in a while."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource

from ..http.server_request import ServerRequest
from ..oci.errors import TooManyRequests
from ..system.networks import Network, client_network
from .filter import RequestFilter
from .rate_counters import RateCounters


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
        spent = self._ledger.spent(network, now, self._window)
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
