"""The connections of a site: the limits and timers that they are held to, and their graceful shutdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sized
from functools import lru_cache
from math import inf
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime

from ..system.networks import Network, client_network, parse_address


@frozen
class HttpLimits:
    """The sizes and times that a client is held to.

    Every time is absolute: a byte now and then extends none.  Only a streamed body may take as long as it
    needs, if it keeps to the minimum rate.

    :ivar head_bytes: for request line, headers and the empty line.
    :ivar head_seconds: from a head's first byte to its last, and for a new connection to send one.
    :ivar body_seconds: for a collected body; for a streamed one, the window of the minimum rate.
    :ivar body_window_bytes: that must arrive in each window, while the mirror is ready to receive them.
    :ivar idle_seconds: between a response and the next request, and for a closing connection to be gone.
    :ivar linger_seconds: from a response whose request was not read to its end until the close; some round
        trips, for a client that reads while it sends.
    :ivar linger_bytes: discarded at most in that time; more than the two kernels buffer (4 and 6 MiB on
        Linux), since a close with unread bytes is a reset, which destroys the response as well.
    :ivar write_seconds: for a client that reads nothing of a response while all buffers in between are full.
    :ivar first_request_seconds: the age at which a drain closes a connection that has sent nothing; its
        request may be on its way.
    """

    head_bytes: int = 64 * 1024
    head_seconds: float = 15
    body_seconds: float = 30
    body_window_bytes: int = 8 * 1024
    idle_seconds: float = 90
    linger_seconds: float = 5
    linger_bytes: int = 16 * 1024 * 1024
    write_seconds: float = 600
    first_request_seconds: float = 2


@frozen
class MinimumRate:
    """The minimum rate of a body: so many bytes in so many seconds, while the mirror is ready to receive
    them.
    """

    bytes: int
    seconds: float


class Timer:
    """A single delayed call; setting it again replaces the pending one."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._call: IDelayedCall | None = None

    def set(self, seconds: float, callback: Callable[[], object]) -> None:
        self.clear()
        self._call = self._clock.callLater(seconds, callback)

    def clear(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None


class WriteTimeout:
    """Ends a connection whose client has read nothing for too long.

    A delayed call for each pause would cost fast clients: one pending call serves all pauses.
    """

    def __init__(self, seconds: float, on_timeout: Callable[[], object], clock: IReactorTime) -> None:
        self._seconds = seconds
        self._on_timeout = on_timeout
        self._clock = clock
        self._stalled_since: float | None = None
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Start measuring: the client reads nothing."""
        self._stalled_since = self._clock.seconds()
        if self._timer is None:
            self._timer = self._clock.callLater(self._seconds, self._check)

    def stop(self) -> None:
        """Stop measuring: the client has read something."""
        self._stalled_since = None

    def cancel(self) -> None:
        """Cancel the pending call: the connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        if self._stalled_since is None:
            return
        remaining = self._stalled_since + self._seconds - self._clock.seconds()
        if remaining <= 0:
            self._on_timeout()
        else:
            self._timer = self._clock.callLater(remaining, self._check)


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
    return None if host is None else _network_of(host)


@lru_cache(maxsize=4096)
def _network_of(host: str) -> Network:
    return client_network(parse_address(host))


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

    def add(self, connection: IConnection, peer: IAddress | None = None) -> None:
        """Count a connection that was made."""
        network = get_peer_network(peer)
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

    def is_reached_by(self, peer: IAddress | None, connections: OpenConnections) -> bool:
        """Return whether the client network of a new connection uses its whole share."""
        network = get_peer_network(peer)
        if network is None or self.share >= 1 or self._is_proxy(network):
            return False
        return connections.count_from(network) >= max(1, int(self.share * self.total))

    def _is_proxy(self, network: Network) -> bool:
        return any(network.network_address in proxy for proxy in self.proxies)
