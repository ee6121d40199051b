"""Limit connections, in total and per client network, with a reserve that still answers health checks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.web.resource import IResource

from ..http.connections import OpenConnections, get_peer_network
from ..http.server import HttpSite
from ..http.server_request import BodyLimit, ServerRequest
from ..oci.errors import RegistryError, TooManyRequests, Unavailable
from ..system.networks import Network
from .filter import HealthRoute, RefusalResource

RESERVED = 8
"""Connections of each reserve; up to twice as many while aborted ones are being closed."""


@frozen
class ConnectionLimit:
    """The maximum number of connections.

    :ivar total: for all clients together.
    :ivar share: the fraction of ``total`` that one client network may use.
    :ivar proxies: networks of trusted proxies, which stand for many clients and are exempt from ``share``.
    """

    total: float = inf
    share: float = 1.0
    proxies: tuple[Network, ...] = ()

    def is_reached(self, connections: OpenConnections) -> bool:
        return connections.open_count >= self.total

    def is_reached_by(self, network: Network | None, connections: OpenConnections) -> bool:
        """Return whether the client network uses its whole share."""
        if network is None or self.share >= 1 or self._is_proxy(network):
            return False
        return connections.count_from(network) >= max(1, int(self.share * self.total))

    def _is_proxy(self, network: Network) -> bool:
        return any(network.network_address in proxy for proxy in self.proxies)


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
        elif self.limit.is_reached_by(get_peer_network(addr), self.connections):
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
