"""The body of a response on its way: complete, broken off, too slow, not wanted any more."""

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
from dockmirror.upstream.response_body import ResponseBody
from tests.fakes import Wire
from tests.stacks import Outcome, client

TEN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
UNTIL_CLOSED = b"HTTP/1.0 200 OK\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Sender:
    """An upstream that has sent the headers of a response, and who takes its body.

    :ivar line: the upstream's connection.
    :ivar taker: the consumer.
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
        """What the taker may pause."""
        return self.taker.producer

    def deliver(self) -> Outcome:
        """The delivery."""
        return Outcome(self.content.deliver(self.taker))


@pytest.fixture
def sender() -> Sender:
    """One that has announced ten bytes."""
    return Sender()


def assert_let_go(sender: Sender) -> None:
    """Nothing is left behind: no producer, no timer, no connection."""
    assert sender.taker.producer is None
    assert sender.line.disconnecting
    assert sender.clock.getDelayedCalls() == []


def test_it_is_a_content(sender: Sender) -> None:
    """Which is delivered or discarded."""
    assert verifyObject(IBody, sender.content)


def test_bytes_pass_as_they_come(sender: Sender) -> None:
    """Each piece at once; the delivery is over with the last one."""
    outcome = sender.deliver()
    sender.send(b"01234")
    assert sender.taker.value() == b"01234"
    assert not outcome
    sender.send(b"56789")
    assert sender.taker.value() == b"0123456789"
    assert outcome == [None]
    assert_let_go(sender)


def test_bytes_that_came_with_the_headers_pass(sender: Sender) -> None:
    """Also when nobody had taken them at once."""
    sender.send(b"0123456789")
    assert sender.deliver() == [None]
    assert sender.taker.value() == b"0123456789"


def test_the_consumer_sets_the_pace(sender: Sender) -> None:
    """Its pauses stop the upstream's sending."""
    sender.deliver()
    assert sender.taker.streaming
    assert sender.line.producerState == "producing"
    sender.producer.pauseProducing()
    assert sender.line.producerState == "paused"
    sender.producer.resumeProducing()
    assert sender.line.producerState == "producing"


@pytest.mark.parametrize("reason", [ConnectionDone(), ConnectionLost()])
@pytest.mark.parametrize("headers", [TEN, CHUNKED])
def test_an_upstream_that_breaks_off(headers: bytes, reason: Exception) -> None:
    """Was unreachable, however politely it closed."""
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
    """A minute without a byte, however many came before."""
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
    """While the consumer pauses the upstream may not send; its minute begins anew afterwards."""
    outcome = sender.deliver()
    sender.producer.pauseProducing()
    sender.clock.advance(1000)
    assert not outcome
    sender.producer.resumeProducing()
    sender.clock.advance(59)
    assert not outcome
    sender.clock.advance(1)
    assert isinstance(outcome.error, TimedOut)


def test_a_cancelled_delivery_leaves_the_upstream(sender: Sender) -> None:
    """Its connection is closed, and what still arrives goes nowhere."""
    outcome = sender.deliver()
    sender.send(b"01234")
    outcome.work.cancel()
    sender.send(b"56789")
    assert isinstance(outcome.error, CancelledError)
    assert sender.taker.value() == b"01234"
    assert_let_go(sender)


def test_a_consumer_that_stops_leaves_the_upstream(sender: Sender) -> None:
    """As a client's transport does when the client has left."""
    outcome = sender.deliver()
    sender.producer.stopProducing()
    assert isinstance(outcome.error, Unreachable)
    assert_let_go(sender)


def test_a_discarded_body_leaves_the_upstream(sender: Sender) -> None:
    """What it had begun to send has no other end."""
    sender.content.discard()
    assert sender.line.disconnecting
    assert sender.clock.getDelayedCalls() == []


def test_a_body_that_has_come_may_be_discarded(sender: Sender) -> None:
    """Nothing is left to be done."""
    sender.send(b"0123456789")
    sender.content.discard()
    assert sender.clock.getDelayedCalls() == []
