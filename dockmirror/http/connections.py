"""The open connections of a site, and their graceful shutdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sized
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime

from ..system.networks import Network, client_network, parse_address


class IConnection(Protocol):
    """A client's connection."""

    @property
    def requests(self) -> Sized:
        """Return the requests without a complete response; at most one."""

    def drain(self) -> None:
        """Close at once, or after the response that runs."""

    def abort(self, reason: str) -> None:
        """Close without sending the rest, for a reason that logs show; the connection is lost soon after."""


def get_peer_network(peer: IAddress | None) -> Network | None:
    """Return the client network that a connection comes from; None for a UNIX socket."""
    host = getattr(peer, "host", None)
    return None if host is None else client_network(parse_address(host))


class OpenConnections:
    """The open connections; each adds and removes itself.

    :ivar draining: True if connections close as soon as they can, new ones included.
    :ivar turned_away: how many connections were rejected because there were too many.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.draining = False
        self.turned_away = 0
        self._clock = clock
        self._open: dict[IConnection, Network | None] = {}
        self._by_network: Counter[Network | None] = Counter()
        self._waiting: list[Deferred[int]] = []
        self._aborted = 0
        self._is_aborting = False
        self._is_drained = False
        self._grace_timer: IDelayedCall | None = None

    @property
    def open_count(self) -> int:
        """Return the number of open connections."""
        return len(self._open)

    @property
    def running_requests(self) -> int:
        """Return the number of requests without a complete response."""
        return sum(len(connection.requests) for connection in self._open)

    def count_from(self, network: Network) -> int:
        """Return how many connections come from a client network."""
        return self._by_network[network]

    def add(self, connection: IConnection, network: Network | None = None) -> None:
        """Count a connection that was made."""
        self._open[connection] = network
        self._by_network[network] += 1

    def remove(self, connection: IConnection) -> None:
        """Forget a connection that was lost, after its requests were told so."""
        if connection in self._open:
            network = self._open.pop(connection)
            self._by_network[network] -= 1
            if not self._by_network[network]:
                del self._by_network[network]
        self._finish_drain()

    def drain(self, grace: float) -> Deferred[int]:
        """Close all connections once their responses are complete; to be called when the site no longer
        listens.

        The result fires when no connection is left, with the number of connections that had to be aborted
        after ``grace`` seconds.  Another call starts nothing (the first call's grace stands) and fires with
        the same.
        """
        if self._is_drained:
            return succeed(self._aborted)
        outcome: Deferred[int] = Deferred()
        self._waiting.append(outcome)
        if not self.draining:
            self.draining = True
            self._grace_timer = self._clock.callLater(0 if self._is_aborting else grace, self._abort)
            for connection in list(self._open):
                connection.drain()
            self._finish_drain()
        return outcome

    def abort(self) -> None:
        """End the grace period of ``drain`` now, or as soon as it begins."""
        self._is_aborting = True
        if self._grace_timer is not None and self._grace_timer.active():
            self._grace_timer.reset(0)

    def _abort(self) -> None:
        self._grace_timer = None
        self._aborted = len(self._open)
        for connection in list(self._open):
            connection.abort("the mirror was stopped before the end of the response")

    def _finish_drain(self) -> None:
        if self._is_drained or not self.draining or self._open:
            return
        self._is_drained = True
        if self._grace_timer is not None:
            self._grace_timer.cancel()
        waiting, self._waiting = self._waiting, []
        for outcome in waiting:
            outcome.callback(self._aborted)
