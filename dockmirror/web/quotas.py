"""How much a client may have in a while."""

from __future__ import annotations

from ipaddress import ip_network

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource

from ..networks import Network
from ..oci.errors import TooManyRequests
from .before import Before
from .exchange import Request

_KEPT = 10_000
_HOST_BITS = {4: 32, 6: 64}
"""A household or a virtual machine has a whole /64 of IPv6 addresses to itself."""


@define
class _Spent:
    """What a network has had since its window began."""

    began: float
    requests: int = 0
    bytes: int = 0
    running: set[Request] = field(factory=set)


class Quotas(Before):
    """Refuses clients who have had enough, until their window has passed.

    A response that has begun goes on: what it sends counts for the requests that follow.

    :param requests: how many a network may make in a window; None for any number.
    :param bytes: how many bytes of bodies it may be sent in a window; None for any number.
    :param window: seconds, from a network's first request on.
    """

    def __init__(
        self,
        resource: IResource,
        clock: IReactorTime,
        requests: int | None,
        bytes: int | None,
        window: float,
    ) -> None:
        super().__init__(resource)
        self._clock = clock
        self._requests = requests
        self._bytes = bytes
        self._window = window
        self._spent: dict[Network, _Spent] = {}

    def admit(self, request: Request) -> None:
        """See ``Before``.

        :raises TooManyRequests: with the seconds that are left of the window.
        """
        address = request.admitted.address if request.admitted else None
        if address is None:
            return
        network = ip_network((address, _HOST_BITS[address.version]), strict=False)
        spent = self._of(network)
        sent = spent.bytes + sum(each.sentLength for each in spent.running)
        if _reached(spent.requests, self._requests) or _reached(sent, self._bytes):
            left = spent.began + self._window - self._clock.seconds()
            raise TooManyRequests(
                "your network has had as much of this mirror as it may have for now",
                retry_after=str(max(1, -int(-left // 1))),
            )
        spent.requests += 1
        spent.running.add(request)
        request.notifyFinish().addBoth(lambda _: self._ended(network, request))

    def _ended(self, network: Network, request: Request) -> None:
        spent = self._spent.get(network)
        if spent is not None and request in spent.running:
            spent.running.remove(request)
            spent.bytes += request.sentLength

    def _of(self, network: Network) -> _Spent:
        now = self._clock.seconds()
        spent = self._spent.get(network)
        if spent is None or now >= spent.began + self._window:
            fresh = _Spent(now)
            if spent is not None:  # what still runs goes on to count, from here
                del self._spent[network]
                fresh.running = spent.running
                fresh.bytes = -sum(each.sentLength for each in spent.running)
            if len(self._spent) >= _KEPT:
                del self._spent[next(iter(self._spent))]  # whose window began first
            self._spent[network] = spent = fresh
        return spent


def _reached(had: int, most: int | None) -> bool:
    return most is not None and had >= most
