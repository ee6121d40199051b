"""Limits of connections: in memory, and a few with real servers."""

# mypy: allow-untyped-decorators

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped, unused-ignore]
from treq import content
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, SSLError
from twisted.internet.interfaces import (
    IHandshakeListener,
    IProtocol,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed, ResponseNeverReceived
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import directlyProvides, implementer

from dockmirror.upstream.bounded_endpoint import (
    HEADERS_LIMIT,
    READ_SIZE,
    BoundedEndpoint,
    HandshakeTimedOut,
    HeadersTooLong,
)
from tests.connections import PUBLIC, connections, failure_of, result_of
from tests.listening import AUTHORITY, HEAD, Endless, Listening, Vanished, real_agent, soon


class _TlsHandshake:
    """A connection over TLS on its way, whose peer has accepted TCP."""

    def __init__(self) -> None:
        self.here = connections(PUBLIC)
        self.connecting = self.here.connect(b"https://r.example/")
        self.wire = self.here.accept()


@pytest.mark.parametrize("error", [HandshakeTimedOut, CancelledError])
def test_a_peer_that_is_silent_in_the_tls_handshake_is_aborted(error: type[Exception]) -> None:
    """The error names TLS; cancelling aborts as well."""
    tls = _TlsHandshake()
    tls.here.reactor.advance(9)
    assert not tls.wire.aborted
    tls.connecting.cancel() if error is CancelledError else tls.here.reactor.advance(1)
    failed = failure_of(tls.connecting)
    assert isinstance(failed, error)
    assert error is CancelledError or "the TLS handshake with r.example took more than 10 s" in str(failed)
    assert tls.wire.aborted
    tls.here.reactor.advance(0)
    assert tls.here.reactor.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"HTTP/1.0 400 Bad\r\n\r\n", "wrong version number"), (b"", "in a non-clean fashion")],
)
def test_a_failed_handshake_says_why(data: bytes, reason: str) -> None:
    """The peer speaks no TLS, or leaves."""
    tls = _TlsHandshake()
    if data:
        tls.wire.protocol.dataReceived(data)
        assert tls.wire.disconnecting
    tls.wire.protocol.connectionLost(Failure(ConnectionAborted()))
    failed = failure_of(tls.connecting)
    assert isinstance(failed, SSLError)
    assert "TLS handshake with r.example: " in str(failed)
    assert reason in str(failed)


@pytest.mark.parametrize("scheme", [b"http", b"https"])
def test_the_socket_is_read_in_large_pieces_and_written_without_delay(scheme: bytes) -> None:
    """Below TLS, too: the HTTP client recognises TCP."""
    here = connections(PUBLIC)
    here.agent.request(b"GET", scheme + b"://r.example/")
    here.reactor.advance(0)
    wire = here.accept()
    assert wire.bufferSize == READ_SIZE
    assert not wire.delay


class _Request:
    """A request on a connection to a server, which the test plays."""

    def __init__(self, **details: Any) -> None:
        self.here = connections(PUBLIC)
        self.response: Any = self.here.get(**details)
        self.wire = self.here.accept()

    def receive(self, data: bytes, size: int = 10**9) -> None:
        """Receive data in pieces of that size."""
        for start in range(0, len(data), size):
            self.wire.protocol.dataReceived(data[start : start + size])

    def read(self) -> Deferred[bytes]:
        """Start to read the body of the response."""
        return content(result_of(self.response))

    def assert_aborted(self, error: type[Exception]) -> None:
        """Expect that the connection was aborted because of that error in the headers."""
        assert self.wire.aborted
        self.here.reactor.advance(0)
        failed = failure_of(self.response)
        assert isinstance(failed, ResponseFailed)
        assert not isinstance(failed, ResponseNeverReceived)  # which would be tried again
        reason = failed.reasons[0].value
        assert isinstance(reason, error)
        assert error is not HeadersTooLong or str(reason) == "the response headers of r.example are too long"


def _headers_of(size: int, first: bytes = HEAD, last: bytes = b"Content-Length: 0\r\n\r\n") -> bytes:
    """Return a header block of that many bytes."""
    line = b"X-Filling: " + b"x" * 87 + b"\r\n"
    lines, rest = divmod(size - len(first) - len(last) - 20, len(line))
    block = first + line * lines + b"X: " + b"x" * (rest + 15) + b"\r\n" + last
    assert len(block) == size
    return block


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n"


@pytest.mark.parametrize("size", [1000, 2**14, 2**18])
def test_headers_that_are_too_long_abort(size: int) -> None:
    """One byte decides, in whatever pieces they arrive."""
    request = _Request()
    request.receive(_headers_of(HEADERS_LIMIT), size)
    assert result_of(request.response).code == 200
    assert not request.wire.aborted
    request = _Request()
    request.receive(_headers_of(HEADERS_LIMIT + 1), size)
    request.assert_aborted(HeadersTooLong)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (HEAD + b"X: " + b"x" * 20_000, HeadersTooLong),
        (HINTS * (HEADERS_LIMIT // len(HINTS)) + HEAD + b"Content-Length: 0\r\n\r\n", HeadersTooLong),
        (HEAD + b"nonsense\r\n\r\n", ValueError),
    ],
    ids=["a line of 16 KiB", "informational responses", "malformed"],
)
def test_invalid_headers_abort(data: bytes, error: type[Exception]) -> None:
    """Informational responses count with the final one; malformed headers fail as such."""
    request = _Request()
    request.receive(data, len(HINTS))
    request.assert_aborted(error)


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000\r\n\r\n", b"\r\n"])
def test_a_body_may_be_of_any_length(framing: bytes) -> None:
    """It may begin in the piece in which the headers end."""
    request, body = _Request(), b"\x00" * 1_000_000
    request.receive(HEAD + framing + body[:500_000])
    reading = request.read()
    request.receive(body[500_000:], 100_000)
    if framing == b"\r\n":
        request.wire.protocol.connectionLost(Failure(ConnectionAborted()))
    assert result_of(reading) == body
    assert not request.wire.aborted


@pytest.mark.parametrize("before", [b"200 OK", b"204 No Content"])
def test_each_response_on_a_connection_has_the_limit(before: bytes) -> None:
    request = _Request()
    for _ in range(3):
        request.receive(_headers_of(40_000, b"HTTP/1.1 " + before + b"\r\n"))
        assert result_of(request.response).phrase in before
        request.response = request.here.get()
    body = b"x" * 200_000
    request.receive(_headers_of(40_000, HEAD, b"Content-Length: 200000\r\n\r\n") + body)
    assert result_of(request.read()) == body
    assert len(request.here.reactor.tcpClients) == 1
    request.here.get().addErrback(lambda _: None)
    request.receive(_headers_of(70_000))
    assert request.wire.aborted


@implementer(IBodyProducer)
class _Unending:
    """A request body that is written piece by piece."""

    length = UNKNOWN_LENGTH

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self.consumer = consumer
        return Deferred()

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


def test_an_early_response_is_limited_by_its_headers_only() -> None:
    """The socket paces the request's body."""
    upload = _Unending()
    request = _Request(method=b"POST", body=upload)
    assert request.wire.producer is upload
    request.receive(HEAD + b"Content-Length: 1000000\r\n\r\n")
    for _ in range(5):
        upload.consumer.write(b"more")
        request.receive(b"x" * 50_000)
    assert not request.wire.aborted


def test_a_slow_reader_pauses_the_socket() -> None:
    """Closing aborts the connection: it needs no consent of the peer."""
    request = _Request()
    request.receive(HEAD + b"Connection: close\r\nContent-Length: 10\r\n\r\n12345")
    assert request.wire.producerState == "paused"
    reading = request.read()
    assert request.wire.producerState == "producing"
    assert not request.wire.aborted
    request.receive(b"67890")
    assert result_of(reading) == b"1234567890"
    assert request.wire.aborted


class _Receiving(Protocol):
    """A protocol that keeps the received pieces."""

    lost = False

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


class _TlsConnection:
    """A bounded connection over TLS, and its client, which reads a body."""

    def __init__(self) -> None:
        self.clock, self.client = Clock(), _Receiving()
        factory = Factory.forProtocol(lambda: self.client)
        endpoint = BoundedEndpoint(self, "r.example", 10.0, self.clock)  # type: ignore[arg-type]
        assert result_of(endpoint.connect(factory)) is self.client
        IPushProducer(self.protocol).pauseProducing()

    def connect(self, factory: Any) -> Deferred[IProtocol]:
        transport = StringTransport()
        directlyProvides(transport, ISSLTransport)
        self.protocol: IProtocol = factory.buildProtocol(IPv4Address("TCP", PUBLIC, 443))
        self.protocol.makeConnection(transport)
        IHandshakeListener(self.protocol).handshakeCompleted()
        return succeed(self.protocol)


def test_tls_records_of_one_read_are_one_piece() -> None:
    """Received records are delivered before the loss."""
    tls = _TlsConnection()
    for record in (b"1", b"2", b"3"):
        tls.protocol.dataReceived(record)
    assert tls.client.pieces == []
    tls.clock.advance(0)
    assert tls.client.pieces == [b"123"]
    tls.protocol.dataReceived(b"4")
    tls.protocol.connectionLost(Failure(ConnectionDone()))
    assert tls.client.lost
    tls.clock.advance(0)
    assert tls.client.pieces == [b"123", b"4"]


def test_a_client_that_dropped_its_connection_gets_nothing_more() -> None:
    tls = _TlsConnection()
    tls.protocol.dataReceived(b"1")
    ITCPTransport(tls.client.transport).abortConnection()
    tls.clock.advance(0)
    assert tls.client.pieces == []


class _Leaving(Protocol):
    """A protocol that stops at its first bytes."""

    def __init__(self, method: str) -> None:
        self._method = method

    def dataReceived(self, data: bytes) -> None:
        getattr(self.transport, self._method)()


@pytest.mark.parametrize("method", ["loseConnection", "stopProducing"])
def test_leaving_within_a_body_aborts(method: str) -> None:
    request = _Request()
    request.receive(HEAD + b"Content-Length: 10\r\n\r\n12345")
    result_of(request.response).deliverBody(_Leaving(method))
    assert request.wire.aborted


@pytest.mark.parametrize("is_closed", [False, True])
def test_an_idle_connection_is_aborted(is_closed: bool) -> None:
    """A pool may drop one that the peer closed long ago."""
    request = _Request()
    request.receive(HEAD + b"Content-Length: 0\r\n\r\n")
    result_of(request.response)
    if is_closed:
        request.wire.protocol.connectionLost(Failure(ConnectionAborted()))
    request.here.reactor.advance(request.here.pool.cachedConnectionTimeout)
    assert request.wire.aborted is not is_closed


@pytest_twisted.ensureDeferred
async def test_a_server_with_endless_headers_is_left(serve: Callable[..., Listening], ca_file: str) -> None:
    server = serve(Endless, AUTHORITY.issue("r.example"))
    with pytest.raises(ResponseFailed) as failed:
        await real_agent(ca_file).request(b"GET", server.url())
    assert isinstance(failed.value.reasons[0].value, HeadersTooLong)
    await server.accepted[0].lost
    assert server.clients() == []


@pytest_twisted.ensureDeferred
async def test_a_vanished_server_holds_no_socket(serve: Callable[..., Listening], ca_file: str) -> None:
    server = serve(Vanished, AUTHORITY.issue("r.example"))
    response = await real_agent(ca_file).request(b"GET", server.url())
    assert await content(response) == b"hello"
    assert await soon(lambda: server.clients() == [])
