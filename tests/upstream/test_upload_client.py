"""Bodies sent to an upstream, and early responses."""

# mypy: allow-untyped-calls
# mypy: allow-untyped-decorators

from __future__ import annotations

import select
import socket
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped, unused-ignore]
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionLost
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer
from zope.interface.verify import verifyObject

from dockmirror.oci.digest import Descriptor
from dockmirror.oci.errors import RegistryError
from dockmirror.upstream.agents import UploadAgent
from dockmirror.upstream.upload_client import DrainingTCP, RequestBodyProducer, UnpooledConnections
from dockmirror.upstream.upstream_client import find_root_cause
from tests.answering import Feed
from tests.fakes import Wire
from tests.stacks import Outcome

TAKING, ANSWERING = 60.0, 300.0


class Upload:
    """A body on its way to an upstream, which the test plays."""

    def __init__(self, size: int | None = 10) -> None:
        self.clock = Clock()
        self.wire = Wire(UnpooledConnections(self.clock))
        self.feed = Feed(Descriptor(size=size))
        self.timeouts: list[float] = []
        self.sent: list[int] = []
        self.producer = RequestBodyProducer(
            self.feed, self.clock, (TAKING, ANSWERING), self.timeouts.append, self.sent.append
        )
        headers = Headers({b"Host": [b"r.example"]})
        request = self.wire.agent.request(b"PUT", b"http://r.example/x", headers, self.producer)
        self.response = Outcome(request)

    @property
    def transport(self) -> Any:
        return self.wire.transports[-1]

    @property
    def body(self) -> bytes:
        """The bytes that have reached the upstream behind the headers."""
        return bytes(self.transport.value()).partition(b"\r\n\r\n")[2]


def test_a_body_with_a_length() -> None:
    """The length is announced, and pieces are sent as they come."""
    upload = Upload()
    assert verifyObject(IBodyProducer, upload.producer)
    assert b"Content-Length: 10\r\n" in upload.transport.value()
    assert b"Connection: close\r\n" in upload.transport.value()
    upload.feed.send(b"0123", b"456789")
    upload.feed.end()
    assert upload.body == b"0123456789"
    assert upload.sent == [4, 6]
    upload.wire.send(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
    assert upload.response.get().code == 201
    assert upload.transport.producer is None


def test_a_body_without_a_length_is_sent_in_chunks() -> None:
    upload = Upload(None)
    upload.feed.send(b"0123")
    assert upload.body == b"4\r\n0123\r\n"
    upload.feed.end()
    assert upload.body == b"4\r\n0123\r\n0\r\n\r\n"


@pytest.mark.parametrize("size", [10, None])
@pytest.mark.parametrize("body", [b"wrong", b""])
def test_an_early_response_is_delivered_at_once(size: int | None, body: bytes) -> None:
    """Its own body may follow; the rest of the request is not sent.  An informational one does not count."""
    upload = Upload(size)
    upload.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert not upload.response
    upload.feed.send(b"01")
    before = upload.body
    assert b"01" in before
    upload.wire.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: %d\r\n\r\n" % len(body))
    assert upload.response.get().code == 413
    assert upload.feed.state == "cancelled"
    assert upload.body == before
    assert upload.transport.disconnecting is not bool(body)
    upload.wire.send(body)
    assert upload.transport.disconnecting


@pytest.mark.parametrize("size", [10, None])
@pytest.mark.parametrize("error", [ConnectionLost, CancelledError, RegistryError])
def test_an_interrupted_body_is_never_completed(size: int | None, error: type[Exception]) -> None:
    """A connection is lost, the request is cancelled, or the body breaks off, whose error the caller gets."""
    upload = Upload(size)
    upload.feed.send(b"01")
    before = upload.body
    if error is ConnectionLost:
        upload.wire.lose(ConnectionLost())
    elif error is CancelledError:
        upload.response.work.cancel()
    else:
        upload.feed.break_off(RegistryError("the client stopped", status=408))
    assert isinstance(find_root_cause(upload.response.error), error)
    assert upload.feed.state == ("broken" if error is RegistryError else "cancelled")
    assert upload.body == before
    assert error is ConnectionLost or upload.transport.disconnected or upload.transport.aborting


def test_an_upstream_that_accepts_nothing_times_out() -> None:
    """It sets the pace; the client's own time does not count."""
    upload = Upload()
    upload.clock.advance(10 * TAKING)
    upload.transport.producer.pauseProducing()
    assert upload.feed.paused
    upload.clock.advance(TAKING - 1)
    upload.transport.producer.resumeProducing()
    assert not upload.feed.paused
    upload.clock.advance(TAKING)
    assert upload.timeouts == []
    upload.transport.producer.pauseProducing()
    upload.clock.advance(TAKING)
    assert upload.timeouts == [TAKING]


def test_an_upstream_may_verify_a_complete_body_for_longer() -> None:
    upload = Upload()
    upload.feed.send(b"0123456789")
    upload.feed.end()
    upload.clock.advance(ANSWERING - 1)
    assert upload.timeouts == []
    upload.clock.advance(1)
    assert upload.timeouts == [ANSWERING]


def test_uploads_use_new_connections() -> None:
    """Other requests use the pool."""
    pooled, new = Wire(), Wire(UnpooledConnections(Clock()))
    agent = UploadAgent(pooled.agent, new.agent)
    assert verifyObject(IAgent, agent)
    agent.request(b"GET", b"http://r.example/")
    assert (len(pooled.transports), len(new.transports)) == (1, 0)
    producer = RequestBodyProducer(Feed(), Clock(), (1, 1), print, print)
    agent.request(b"PUT", b"http://r.example/", None, producer)
    assert (len(pooled.transports), len(new.transports)) == (1, 1)


ANSWER = b"HTTP/1.1 413 Too Large\r\nContent-Length: 20000\r\n\r\n" + bytes(20_000)


class Recorder(Protocol):
    """A protocol that records its data."""

    received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data


@pytest.mark.parametrize("answer", [ANSWER, ANSWER[:50], b""])
@pytest_twisted.ensureDeferred
async def test_a_response_is_read_before_a_failed_write_is_reported(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
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
        poll = select.poll()
        poll.register(transport.fileno(), 0)
        assert poll.poll(10_000)  # it has been reset
        transport.write(b"more")
        error = transport.doWrite()
        assert isinstance(error, ConnectionLost)
        assert recorder.received == answer
        transport.abortConnection()


@pytest_twisted.ensureDeferred
async def test_a_refused_connection_fails_as_usual() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    with pytest.raises(Refused):
        await TCP4ClientEndpoint(DrainingTCP(reactor), *address).connect(Factory.forProtocol(Recorder))
