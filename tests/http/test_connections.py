"""Draining connections: its end, and the number of aborted ones."""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dockmirror.http.connections import OpenConnections, get_peer_network


class Line:
    """A connection that closes when it is drained, if it is idle."""

    def __init__(self, connections: OpenConnections, running: int = 0) -> None:
        self.requests = [object()] * running
        self._connections = connections
        connections.add(self)

    def drain(self) -> None:
        """Close unless a request runs."""
        if not self.requests:
            self.abort("drained")

    def abort(self, reason: str) -> None:
        """Close."""
        self._connections.remove(self)


def fired(outcome: Deferred[int]) -> list[int]:
    """Return the results that have fired."""
    results: list[int] = []
    outcome.addCallback(results.append)
    return results


def test_open_connections_and_running_requests_are_counted() -> None:
    connections = OpenConnections(Clock())
    Line(connections)
    running = Line(connections, running=1)
    assert (connections.open_count, connections.running_requests) == (2, 1)
    connections.remove(running)
    assert (connections.open_count, connections.running_requests) == (1, 0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def connections(clock: Clock) -> OpenConnections:
    return OpenConnections(clock)


def test_a_drain_ends_with_the_last_connection(clock: Clock, connections: OpenConnections) -> None:
    """Idle connections close at once, the others after their response."""
    assert fired(OpenConnections(clock).drain(10)) == [0]
    Line(connections)
    running = Line(connections, running=1)
    outcome = fired(connections.drain(10))
    assert (outcome, connections.open_count) == ([], 1)
    connections.remove(running)
    assert (outcome, clock.getDelayedCalls()) == ([0], [])


@pytest.mark.parametrize("is_early", [False, True])
def test_the_grace_can_be_ended_early(clock: Clock, connections: OpenConnections, is_early: bool) -> None:
    """Even before it has begun."""
    Line(connections, running=1)
    if is_early:
        connections.abort()
    outcome = fired(connections.drain(10))
    if not is_early:
        connections.abort()
    clock.advance(0)
    assert outcome == [1]
    connections.abort()
    assert not clock.getDelayedCalls()


def test_connections_left_after_the_grace_are_aborted(clock: Clock, connections: OpenConnections) -> None:
    """A second drain has the result of the first, and its grace is ignored."""
    for _ in range(2):
        Line(connections, running=1)
    first, second = fired(connections.drain(10)), fired(connections.drain(99))
    clock.advance(10)
    assert (first, second, fired(connections.drain(99))) == ([2], [2], [2])


def test_cancelling_a_wait_does_not_stop_the_drain(connections: OpenConnections) -> None:
    line = Line(connections, running=1)
    impatient, patient = connections.drain(10), fired(connections.drain(10))
    impatient.addErrback(lambda _: None)
    impatient.cancel()
    connections.remove(line)
    assert patient == [0]


def test_connections_are_counted_by_client_network() -> None:
    """The network of a client is its IPv4 address, or its IPv6 /64."""
    connections = OpenConnections(Clock())
    lines = [Line(connections) for _ in range(4)]
    peers = [
        IPv4Address("TCP", "192.0.2.1", 1), IPv6Address("TCP", "::ffff:192.0.2.1", 1),
        IPv6Address("TCP", "2001:db8::1", 1), IPv6Address("TCP", "2001:db8::2%eth0", 1),
    ]  # fmt: skip
    networks = [get_peer_network(peer) for peer in peers]
    four, _, six, _ = networks
    assert four is not None
    assert six is not None
    for line, peer in zip(lines, peers, strict=True):
        connections.remove(line)
        connections.add(line, peer)
    assert (connections.count_from(four), connections.count_from(six)) == (2, 2)
    for line in lines[:3]:
        connections.remove(line)
        connections.remove(line)
    assert (connections.count_from(four), connections.count_from(six)) == (0, 1)
    assert get_peer_network(UNIXAddress("/run/a")) is None
