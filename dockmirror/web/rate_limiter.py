"""Limit the requests and bytes that each client network may use in a window of time."""

from __future__ import annotations

from collections.abc import Callable

from twisted.web.resource import IResource

from ..http.server_request import ServerRequest
from ..http.usage import LimitTerms, UsageMeter
from ..system.networks import client_network
from .filter import RequestFilter


class RateLimiter(RequestFilter):
    """Rejects clients that have used up their limit, until their window ends.

    A response that has begun is finished; its bytes count against later requests.

    :param meter: measures the usage of each network.
    :param count: counts a rejected request.
    """

    def __init__(
        self, resource: IResource, meter: UsageMeter, terms: LimitTerms, count: Callable[[], object]
    ) -> None:
        super().__init__(resource)
        self._meter = meter
        self._terms = terms
        self._count = count

    def check(self, request: ServerRequest) -> None:
        """:raises TooManyRequests: with the seconds left of the window."""
        address = self._terms.limited_address(request)
        if address is None:
            return
        key = client_network(address).network_address.packed
        seconds = self._meter.remaining_wait(key)
        if seconds is not None:
            self._count()
            raise self._terms.refusal("your network", seconds)
        self._meter.begin(key, request)
