"""Bodies of responses: complete, broken off, stalled, or no longer needed."""

# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface.verify import verifyObject

from dockmirror.interfaces import IBody
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.errors import TimedOut, Unreachable
from dockmirror.upstream.upstream_client import ResponseBody
from tests.fakes import Wire
from tests.stacks import Outcome, client

TEN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
UNTIL_CLOSED = b"HTTP/1.0 200 OK\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Sender:
    """An upstream that has sent the headers of a response, and the consumer of its body. :ivar line: the
    upstream's connection. :ivar taker: the consumer.
    """

    def __init__(self, headers: bytes = TEN) -> None:
        self.clock = Clock()
        self._wire = Wire()
        response = Outcome(client(self._wire.agent, self.clock).request("GET", "http://upstream.example/"))
        self._wire.send(headers)
        self.content = ResponseBody(response.get(), Descriptor(size=10), self.clock)
        self.line = self._wire.transports[0]
        self.taker = StringTransport()
        self.send, self.lose = self._wire.send, self._wire.lose

    @property
    def producer(self) -> Any:
        """The producer that the consumer may pause."""
        return self.taker.producer

    def deliver(self) -> Outcome:
        """Start the delivery."""
        return Outcome(self.content.deliver(self.taker))


@pytest.fixture
def sender() -> Sender:
    """Return one that has announced ten bytes."""
    return Sender()


def assert_let_go(sender: Sender) -> None:
    """Expect that no producer, timer or connection is left."""
    assert sender.taker.producer is None
    assert sender.line.disconnecting
    assert sender.clock.getDelayedCalls() == []


def test_it_is_a_body(sender: Sender) -> None:
    assert verifyObject(IBody, sender.content)


def test_pieces_are_delivered_as_they_arrive(sender: Sender) -> None:
    """The delivery ends with the last one."""
    outcome = sender.deliver()
    sender.send(b"01234")
    assert sender.taker.value() == b"01234"
    assert not outcome
    sender.send(b"56789")
    assert sender.taker.value() == b"0123456789"
    assert outcome == [None]
    assert_let_go(sender)


def test_bytes_that_came_with_the_headers_are_delivered(sender: Sender) -> None:
    sender.send(b"0123456789")
    assert sender.deliver() == [None]
    assert sender.taker.value() == b"0123456789"


def test_the_consumer_sets_the_pace(sender: Sender) -> None:
    """Its pauses stop the upstream."""
    sender.deliver()
    assert sender.taker.streaming
    assert sender.line.producerState == "producing"
    sender.producer.pauseProducing()
    assert sender.line.producerState == "paused"
    sender.producer.resumeProducing()
    assert sender.line.producerState == "producing"


@pytest.mark.parametrize("reason", [ConnectionDone(), ConnectionLost()])
@pytest.mark.parametrize("headers", [TEN, CHUNKED])
def test_a_lost_connection_is_an_error(headers: bytes, reason: Exception) -> None:
    sender = Sender(headers)
    outcome = sender.deliver()
    sender.send(b"3\r\nabc\r\n")
    sender.lose(reason)
    assert isinstance(outcome.error, Unreachable)
    assert sender.taker.producer is None
    assert sender.clock.getDelayedCalls() == []


def test_a_body_without_length_ends_with_its_connection() -> None:
    """There is no other sign of its end."""
    sender = Sender(UNTIL_CLOSED)
    outcome = sender.deliver()
    sender.send(b"01234")
    sender.lose(ConnectionDone())
    assert outcome == [None]
    assert sender.taker.value() == b"01234"


def test_an_upstream_that_stalls_is_left_after_a_minute(sender: Sender) -> None:
    """The minute counts from the last byte."""
    outcome = sender.deliver()
    for _ in range(3):
        sender.clock.advance(59)
        sender.send(b"0")
    sender.clock.advance(59.9)
    assert not outcome
    sender.clock.advance(0.1)
    assert isinstance(outcome.error, TimedOut)
    assert_let_go(sender)


def test_a_slow_client_is_not_a_stalled_upstream(sender: Sender) -> None:
    """Pauses of the consumer do not count."""
    outcome = sender.deliver()
    sender.producer.pauseProducing()
    sender.clock.advance(1000)
    assert not outcome
    sender.producer.resumeProducing()
    sender.clock.advance(59)
    assert not outcome
    sender.clock.advance(1)
    assert isinstance(outcome.error, TimedOut)


def test_a_cancelled_delivery_closes_the_connection(sender: Sender) -> None:
    outcome = sender.deliver()
    sender.send(b"01234")
    outcome.work.cancel()
    sender.send(b"56789")
    assert isinstance(outcome.error, CancelledError)
    assert sender.taker.value() == b"01234"
    assert_let_go(sender)


def test_a_consumer_that_stops_closes_the_connection(sender: Sender) -> None:
    """As a client's transport does when the client has left."""
    outcome = sender.deliver()
    sender.producer.stopProducing()
    assert isinstance(outcome.error, Unreachable)
    assert_let_go(sender)


def test_discarding_a_body_closes_the_connection(sender: Sender) -> None:
    sender.content.discard()
    assert sender.line.disconnecting
    assert sender.clock.getDelayedCalls() == []


def test_a_complete_body_may_be_discarded(sender: Sender) -> None:
    sender.send(b"0123456789")
    sender.content.discard()
    assert sender.clock.getDelayedCalls() == []
