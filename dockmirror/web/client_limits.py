"""Limits of clients: their connections, their requests and bytes, and their failed logins."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable
from math import ceil
from struct import Struct
from typing import Any

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.web.resource import IResource

from ..http.connections import ConnectionLimit
from ..http.server import HttpSite
from ..http.server_request import BodyLimit, ServerRequest
from ..http.usage import LimitTerms, UsageMeter
from ..oci.errors import RegistryError, TooManyRequests, Unauthorized, Unavailable
from ..system.networks import Network, client_network
from ..system.shared_table import SharedTable, hash_key
from .respond import HealthRoute, RefusalResource, RequestFilter

RESERVED = 8
"""Connections of each reserve; up to twice as many while aborted ones are being closed."""
WINDOW = 60.0
"""Seconds, from the first failed login, in which failures are counted together."""
MAX_PER_NAME = 10
"""Failed logins that a network may make with one user name in a window."""
MAX_PER_NETWORK = 100
"""Failed logins that a network may make in a window."""
MAX_CONCURRENT = 16
"""Passwords of one network that are compared, or wait for it, at the same time."""
_SLOT = Struct("<QdQ")
"""Key of the network or name, start of the window, number of failures."""
FAILED_LOGINS_SIZE = 16_384 * _SLOT.size
"""Bytes of memory for 16,384 networks and names."""


class ConnectionLimitedSite(HttpSite):
    """Serves connections up to a limit; on a few more it answers health checks and rejects the rest.

    :ivar limit: applies to new connections.
    """

    def __init__(self, resource: IResource, reactor: IReactorTime, *, body_limit: BodyLimit) -> None:
        super().__init__(resource, reactor, body_limit=body_limit)
        self.limit = ConnectionLimit()
        self._full = _Reserve(
            Unavailable("the mirror has reached its connection limit; try again later", status=503),
            reactor,
            self.log,
        )
        self._over_share = _Reserve(
            TooManyRequests(
                "connection limit reached for your network; close some connections or try again later"
            ),
            reactor,
            self.log,
        )

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return a connection that is served, or one of a reserve."""
        if self.limit.is_reached(self.connections):
            site: HttpSite = self._full
        elif self.limit.is_reached_by(addr, self.connections):
            site = self._over_share
        else:
            return super().buildProtocol(addr)
        self.connections.turned_away += 1
        return site.buildProtocol(addr)


class _Reserve(HttpSite):
    """A few connections beyond the limit, each for one request and about two seconds.

    A new connection replaces the oldest one, so that silent clients cannot keep health checks out.
    """

    def __init__(
        self, error: RegistryError, reactor: IReactorTime, log: Callable[[ServerRequest], None]
    ) -> None:
        super().__init__(HealthRoute(RefusalResource(error)), reactor, log=log)
        self.connections.draining = True  # so that none outlives its answer, or stays silent for long
        self._newest: deque[Any] = deque()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return a connection, or None if too many are still being closed."""
        if self.connections.open_count >= 2 * RESERVED:
            return None
        if len(self._newest) == RESERVED:
            self._newest.popleft().abort("too many connections")
        channel = super().buildProtocol(addr)
        self._newest.append(channel)
        return channel


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


class FailedLogins:
    """Limits the wrong passwords that a client network may try; networks do not affect each other.

    A login counts as failed until it succeeds, so that parallel attempts do not evade the limit.

    :param memory: at most ``FAILED_LOGINS_SIZE`` bytes, zeroed at first, shared by the processes of a mirror.
    """

    def __init__(self, memory: memoryview, clock: IReactorTime) -> None:
        self._failures = SharedTable(memory, _SLOT, lambda record: record[1])
        self._clock = clock
        self._running: Counter[str] = Counter()

    async def attempt(self, network: Network | None, name: bytes, check: Callable[[], Awaitable[str]]) -> str:
        """Return the result of a password check.

        :param network: None for clients on a socket without addresses, who count as one network.
        :param check: raises ``Unauthorized`` for a wrong password.
        :raises TooManyRequests: when the network has failed too often; the password is not compared.
        """
        origin = str(network or "")
        by_name = hash_key(f"name {origin} ".encode() + name)
        by_network = hash_key(f"network {origin}".encode())
        self._refuse(by_name, MAX_PER_NAME)
        self._refuse(by_network, MAX_PER_NETWORK)
        if self._running[origin] >= MAX_CONCURRENT:
            raise TooManyRequests("too many logins at once from your network", retry_after="1")
        self._running[origin] += 1
        self._add(by_name, 1)
        self._add(by_network, 1)
        failed = False
        try:
            return await check()
        except Unauthorized:
            failed = True
            raise
        finally:
            self._leave(origin)
            if not failed:
                self._add(by_name, -1)
                self._add(by_network, -1)

    def _refuse(self, key: int, limit: int) -> None:
        _, began, count = self._find(key)
        if count >= limit:
            left = str(max(1, ceil(began + WINDOW - self._clock.seconds())))
            raise TooManyRequests(
                f"too many failed logins from your network; try again in {left} s", retry_after=left
            )

    def _add(self, key: int, count: int) -> None:
        offset, began, before = self._find(key)
        self._failures.put(offset, key, began, max(0, before + count))

    def _find(self, key: int) -> tuple[int, float, int]:
        now = self._clock.seconds()
        offset, record = self._failures.find(key)
        if record is not None and record[1] <= now < record[1] + WINDOW:
            return offset, record[1], record[2]
        return offset, now, 0

    def _leave(self, origin: str) -> None:
        self._running[origin] -= 1
        if not self._running[origin]:
            del self._running[origin]
