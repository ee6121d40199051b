"""Bodies sent to an upstream, and early responses."""

# mypy: allow-untyped-calls
# mypy: allow-untyped-decorators

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped, unused-ignore]
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionLost
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer
from zope.interface.verify import verifyObject

from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.errors import RegistryError
from dockmirror.upstream.agents import UploadAgent
from dockmirror.upstream.upload_client import DrainingTCP, RequestBodyProducer, UnpooledConnections
from dockmirror.upstream.upstream_client import find_root_cause
from tests.answering import Feed
from tests.fakes import Wire
from tests.stacks import Outcome

TAKING, ANSWERING = 60.0, 300.0


class Push:
    """A body on its way to an upstream, which the test plays."""

    def __init__(self, size: int | None = 10) -> None:
        self.clock = Clock()
        self.wire = Wire(UnpooledConnections(self.clock))
        self.feed = Feed(Descriptor(size=size))
        self.late: list[float] = []
        self.sent: list[int] = []
        self.sending = RequestBodyProducer(
            self.feed, self.clock, (TAKING, ANSWERING), self.late.append, self.sent.append
        )
        headers = Headers({b"Host": [b"r.example"]})
        self.asked: Deferred[Any] = self.wire.agent.request(
            b"PUT", b"http://r.example/x", headers, self.sending
        )
        self.outcome = Outcome(self.asked)

    @property
    def transport(self) -> Any:
        """The connection."""
        return self.wire.transports[-1]

    @property
    def body(self) -> bytes:
        """The bytes that have reached the upstream behind the headers."""
        return bytes(self.transport.value()).partition(b"\r\n\r\n")[2]


@pytest.fixture
def push() -> Push:
    """Return one with a length."""
    return Push()


def test_it_is_a_body_producer() -> None:
    assert verifyObject(IBodyProducer, Push().sending)


def test_a_body_with_a_length(push: Push) -> None:
    """The length is announced, and pieces are sent as they come."""
    assert b"Content-Length: 10\r\n" in push.transport.value()
    assert b"Connection: close\r\n" in push.transport.value()
    push.feed.send(b"0123", b"456789")
    push.feed.end()
    assert push.body == b"0123456789"
    assert push.sent == [4, 6]
    push.wire.send(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
    assert push.outcome.get().code == 201
    assert push.transport.producer is None


def test_a_body_without_a_length_is_sent_in_chunks() -> None:
    push = Push(None)
    push.feed.send(b"0123")
    assert push.body == b"4\r\n0123\r\n"
    push.feed.end()
    assert push.body == b"4\r\n0123\r\n0\r\n\r\n"


def test_the_upstream_sets_the_pace(push: Push) -> None:
    push.transport.producer.pauseProducing()
    assert push.feed.paused
    push.transport.producer.resumeProducing()
    assert not push.feed.paused


@pytest.mark.parametrize("size", [10, None])
class TestEarly:
    """A response before the whole body was sent."""

    def test_an_early_response_is_delivered_at_once(self, size: int | None) -> None:
        """Its own body may follow; the rest of the request is not sent."""
        push = Push(size)
        push.feed.send(b"01")
        before = push.body
        push.wire.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\n")
        assert push.outcome.get().code == 413
        assert push.feed.state == "cancelled"
        assert push.transport.producer is None
        assert push.body == before
        assert not push.transport.disconnecting
        push.wire.send(b"wrong")
        assert push.transport.disconnecting

    def test_a_complete_early_response_is_delivered(self, size: int | None) -> None:
        push = Push(size)
        push.wire.send(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
        assert push.outcome.get().code == 401
        assert push.feed.state == "cancelled"
        assert push.transport.disconnecting

    def test_an_informational_response_is_not_the_answer(self, size: int | None) -> None:
        push = Push(size)
        push.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert not push.outcome
        assert push.feed.state == "open"

    def test_a_lost_connection_stops_the_body(self, size: int | None) -> None:
        push = Push(size)
        push.feed.send(b"01")
        push.wire.lose(ConnectionLost())
        assert isinstance(find_root_cause(push.outcome.error), ConnectionLost)
        assert push.feed.state == "cancelled"

    def test_cancelling_aborts_the_connection(self, size: int | None) -> None:
        """The sent part is never completed."""
        push = Push(size)
        push.feed.send(b"01")
        before = push.body
        push.asked.cancel()
        assert push.feed.state == "cancelled"
        assert push.transport.disconnected or push.transport.aborting
        assert push.body == before

    def test_a_body_that_breaks_off_is_never_completed(self, size: int | None) -> None:
        """The caller gets its error."""
        push = Push(size)
        push.feed.send(b"01")
        before = push.body
        push.feed.break_off(RegistryError("the client stopped", status=408))
        cause = find_root_cause(push.outcome.error)
        assert isinstance(cause, RegistryError)
        assert cause.status == 408
        assert push.body == before
        assert push.transport.disconnected or push.transport.aborting


class TestTime:
    """Time limits of an upstream."""

    def test_an_upstream_that_accepts_nothing_times_out(self, push: Push) -> None:
        """The client's own time does not count."""
        push.clock.advance(10 * TAKING)
        push.transport.producer.pauseProducing()
        push.clock.advance(TAKING - 1)
        push.transport.producer.resumeProducing()
        push.clock.advance(TAKING)
        assert push.late == []
        push.transport.producer.pauseProducing()
        push.clock.advance(TAKING)
        assert push.late == [TAKING]

    def test_an_upstream_may_verify_a_complete_body_for_longer(self, push: Push) -> None:
        push.feed.send(b"0123456789")
        push.feed.end()
        push.clock.advance(ANSWERING - 1)
        assert push.late == []
        push.clock.advance(1)
        assert push.late == [ANSWERING]


def test_uploads_use_new_connections() -> None:
    """Other requests use the pool."""
    kept, new = Wire(), Wire(UnpooledConnections(Clock()))
    apart = UploadAgent(kept.agent, new.agent)
    assert verifyObject(IAgent, apart)
    apart.request(b"GET", b"http://r.example/")
    assert (len(kept.transports), len(new.transports)) == (1, 0)
    sending = RequestBodyProducer(Feed(), Clock(), (1, 1), lambda _: None, lambda _: None)
    apart.request(b"PUT", b"http://r.example/", None, sending)
    assert (len(kept.transports), len(new.transports)) == (1, 1)


ANSWER = b"HTTP/1.1 413 Too Large\r\nContent-Length: 20000\r\n\r\n" + bytes(20_000)


class Recorder(Protocol):
    """A protocol that records its data, and the reason of its end."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = reason.value


@contextmanager
def _listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.parametrize("answer", [ANSWER, ANSWER[:50], b""])
@pytest_twisted.ensureDeferred
async def test_a_response_is_read_before_a_failed_write_is_reported(answer: bytes) -> None:
    with _listening() as server:
        endpoint = TCP4ClientEndpoint(DrainingTCP(reactor), *server.getsockname())
        recorder: Any = await endpoint.connect(Factory.forProtocol(Recorder))
        accepted, _ = server.accept()
        transport = recorder.transport
        transport.pauseProducing()  # the reactor sees that it can be written to, and not yet what has come
        transport.write(b"body")
        assert transport.doWrite() is None
        assert select.select([accepted], [], [], 10)[0]
        accepted.sendall(answer)
        accepted.close()  # which resets the connection: the body was not read
        _wait_until_reset(transport)
        transport.write(b"more")
        error = transport.doWrite()
        assert isinstance(error, ConnectionLost)
        assert recorder.received == answer
        transport.abortConnection()


def _wait_until_reset(transport: Any) -> None:
    poll = select.poll()
    poll.register(transport.fileno(), 0)
    assert poll.poll(10_000)


@pytest_twisted.ensureDeferred
async def test_a_refused_connection_fails_as_usual() -> None:
    with _listening() as server:
        address = server.getsockname()
    with pytest.raises(Refused):
        await TCP4ClientEndpoint(DrainingTCP(reactor), *address).connect(Factory.forProtocol(Recorder))
