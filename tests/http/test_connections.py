"""Draining: when it ends, and with how many aborted."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dockmirror.http.connections import OpenConnections, network_of


class Line:
    """A connection that closes when it is told to, if it is idle."""

    def __init__(self, connections: OpenConnections, running: int = 0) -> None:
        self.requests = [object()] * running
        self._connections = connections
        connections.add(self)

    def drain(self) -> None:
        """Closes unless a request runs."""
        if not self.requests:
            self.abort()

    def abort(self) -> None:
        """Closes."""
        self._connections.remove(self)


def fired(outcome: Deferred[int]) -> list[int]:
    """What it fired with, if it has."""
    results: list[int] = []
    outcome.addCallback(results.append)
    return results


def test_counts() -> None:
    """Connections and the requests that run on them are counted."""
    connections = OpenConnections(Clock())
    Line(connections)
    running = Line(connections, running=1)
    assert (connections.open, connections.running) == (2, 1)
    connections.remove(running)
    assert (connections.open, connections.running) == (1, 0)


def test_nothing_open_is_drained_at_once() -> None:
    """And nothing is left scheduled."""
    clock = Clock()
    assert fired(OpenConnections(clock).drain(10)) == [0]
    assert not clock.getDelayedCalls()


def test_it_ends_with_the_last_connection() -> None:
    """Idle connections close at once, the others in their time."""
    clock = Clock()
    connections = OpenConnections(clock)
    Line(connections)
    running = Line(connections, running=1)
    outcome = fired(connections.drain(10))
    assert (outcome, connections.open) == ([], 1)
    connections.remove(running)
    assert outcome == [0]
    assert not clock.getDelayedCalls()


def test_what_is_left_after_the_grace_is_aborted() -> None:
    """The outcome says how many that were."""
    clock = Clock()
    connections = OpenConnections(clock)
    Line(connections, running=1)
    Line(connections, running=1)
    outcome = fired(connections.drain(10))
    clock.advance(10)
    assert outcome == [2]


def test_a_second_drain_has_the_first_ones_outcome() -> None:
    """Also when it comes while the first one runs, or when it is over; its grace means nothing."""
    clock = Clock()
    connections = OpenConnections(clock)
    Line(connections, running=1)
    first, second = fired(connections.drain(10)), fired(connections.drain(99))
    clock.advance(10)
    assert (first, second, fired(connections.drain(99))) == ([1], [1], [1])


def test_a_cancelled_wait_ends_no_drain() -> None:
    """Who stops waiting stops only that."""
    connections = OpenConnections(Clock())
    line = Line(connections, running=1)
    impatient, patient = connections.drain(10), fired(connections.drain(10))
    impatient.addErrback(lambda _: None)
    impatient.cancel()
    connections.remove(line)
    assert patient == [0]


def test_networks_are_counted() -> None:
    """The connections of each client network are counted: an IPv4 address, or an IPv6 /64."""
    connections = OpenConnections(Clock())
    lines = [Line(connections) for _ in range(4)]
    peers = [
        IPv4Address("TCP", "192.0.2.1", 1), IPv6Address("TCP", "::ffff:192.0.2.1", 1),
        IPv6Address("TCP", "2001:db8::1", 1), IPv6Address("TCP", "2001:db8::2%eth0", 1),
    ]  # fmt: skip
    networks = [network_of(peer) for peer in peers]
    four, _, six, _ = networks
    assert four is not None
    assert six is not None
    for line, network in zip(lines, networks, strict=True):
        connections.remove(line)
        connections.add(line, network)
    assert (connections.open_from(four), connections.open_from(six)) == (2, 2)
    for line in lines[:3]:
        connections.remove(line)
        connections.remove(line)
    assert (connections.open_from(four), connections.open_from(six)) == (0, 1)
    assert network_of(UNIXAddress("/run/a")) is None
