"""The connections that are open, and how they come to an end when the process does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sized
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime

from ..system.networks import Network, client_network, parse_address


class IConnection(Protocol):
    """One client's connection."""

    @property
    def requests(self) -> Sized:
        """Those that were received and are not answered yet; at most one."""

    def drain(self) -> None:
        """Closes when nothing is under way, at once or after the response that runs."""

    def abort(self) -> None:
        """Closes without sending what is left; the connection is lost soon after."""


def network_of(peer: IAddress | None) -> Network | None:
    """Return the client network that a connection comes from; None for a UNIX socket."""
    host = getattr(peer, "host", None)
    return None if host is None else client_network(parse_address(host))


class OpenConnections:
    """The open connections; each adds and removes itself.

    :ivar draining: whether connections are to close as soon as they can; those that still come in, too.
    :ivar turned_away: how many were not served, because there were too many.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.draining = False
        self.turned_away = 0
        self._clock = clock
        self._open: dict[IConnection, Network | None] = {}
        self._by_network: Counter[Network | None] = Counter()
        self._waiting: list[Deferred[int]] = []
        self._aborted = 0
        self._over = False
        self._grace: IDelayedCall | None = None

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._open)

    @property
    def running(self) -> int:
        """How many requests were received and are not answered yet."""
        return sum(len(connection.requests) for connection in self._open)

    def open_from(self, network: Network) -> int:
        """Return how many connections come from a client network."""
        return self._by_network[network]

    def add(self, connection: IConnection, network: Network | None = None) -> None:
        """Called by a connection that was made."""
        self._open[connection] = network
        self._by_network[network] += 1

    def remove(self, connection: IConnection) -> None:
        """Called by a connection that was lost, after its requests were told."""
        if connection in self._open:
            network = self._open.pop(connection)
            self._by_network[network] -= 1
            if not self._by_network[network]:
                del self._by_network[network]
        self._settle()

    def drain(self, grace: float) -> Deferred[int]:
        """Lets every response finish, and closes.  To be called when nothing listens any more.

        Fires when no connection is left, with how many had to be aborted because they were still there after
        ``grace`` seconds.  Called again it begins nothing anew (the first call's grace stands) and fires with
        the same.
        """
        if self._over:
            return succeed(self._aborted)
        outcome: Deferred[int] = Deferred()
        self._waiting.append(outcome)
        if not self.draining:
            self.draining = True
            self._grace = self._clock.callLater(grace, self._abort)
            for connection in list(self._open):
                connection.drain()
            self._settle()
        return outcome

    def _abort(self) -> None:
        self._grace = None
        self._aborted = len(self._open)
        for connection in list(self._open):
            connection.abort()

    def _settle(self) -> None:
        if self._over or not self.draining or self._open:
            return
        self._over = True
        if self._grace is not None:
            self._grace.cancel()
        waiting, self._waiting = self._waiting, []
        for outcome in waiting:
            outcome.callback(self._aborted)
