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
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer, IResponse
from zope.interface import directlyProvides, implementer

from dockmirror.upstream.bounded_endpoint import (
    HEADERS_LIMIT,
    READ_SIZE,
    BoundedEndpoint,
    HandshakeTimedOut,
    HeadersTooLong,
)
from tests.connections import PUBLIC, Connections, Wire, connections, failure_of, result_of
from tests.listening import AUTHORITY, HEAD, Endless, Listening, Vanished, real_agent, soon


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_peer_that_is_silent_in_the_tls_handshake_is_aborted(cancelled: bool) -> None:
    """The error names TLS; cancelling aborts as well."""
    here = connections(PUBLIC)
    connecting = here.connect(b"https://r.example/")
    wire = here.accept()
    here.reactor.advance(9)
    assert not wire.aborted
    if cancelled:
        connecting.cancel()
        assert isinstance(failure_of(connecting), CancelledError)
    else:
        here.reactor.advance(1)
        late = failure_of(connecting)
        assert isinstance(late, HandshakeTimedOut)
        assert "the TLS handshake with r.example took more than 10 s" in str(late)
    assert wire.aborted
    here.reactor.advance(0)
    assert here.reactor.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"HTTP/1.0 400 Bad\r\n\r\n", "wrong version number"), (b"", "in a non-clean fashion")],
)
def test_a_failed_handshake_says_why(data: bytes, reason: str) -> None:
    """The peer speaks no TLS, or leaves."""
    here = connections(PUBLIC)
    connecting = here.connect(b"https://r.example/")
    wire = here.accept()
    if data:
        wire.protocol.dataReceived(data)
        assert wire.disconnecting
    wire.protocol.connectionLost(Failure(ConnectionAborted()))
    failed = failure_of(connecting)
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


def _request(**choices: Any) -> tuple[Connections, Wire, Deferred[IResponse]]:
    """Return a request that was sent and not answered."""
    here = connections(PUBLIC)
    response = here.get(**choices)
    return here, here.accept(), response


def _headers_of(size: int, first: bytes = HEAD, last: bytes = b"Content-Length: 0\r\n\r\n") -> bytes:
    """Return a header block of that many bytes."""
    line = b"X-Filling: " + b"x" * 87 + b"\r\n"
    lines, rest = divmod(size - len(first) - len(last) - 20, len(line))
    block = first + line * lines + b"X: " + b"x" * (rest + 15) + b"\r\n" + last
    assert len(block) == size
    return block


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def _assert_failed(request: tuple[Connections, Wire, Deferred[IResponse]], error: type[Exception]) -> str:
    """Expect that the connection was aborted with that error, and return its message."""
    here, wire, response = request
    assert wire.aborted
    here.reactor.advance(0)
    failed = failure_of(response)
    assert isinstance(failed, ResponseFailed)
    assert not isinstance(failed, ResponseNeverReceived)  # which would be tried again
    assert isinstance(failed.reasons[0].value, error)
    return str(failed.reasons[0].value)


@pytest.mark.parametrize("size", [1000, 2**14, 2**18])
def test_headers_that_are_too_long_abort(size: int) -> None:
    """One byte decides, in whatever pieces they arrive."""
    here, wire, response = _request()
    for piece in _pieces(_headers_of(HEADERS_LIMIT), size):
        wire.protocol.dataReceived(piece)
    assert result_of(response).code == 200
    assert not wire.aborted

    here, wire, response = _request()
    for piece in _pieces(_headers_of(HEADERS_LIMIT + 1), size):
        wire.protocol.dataReceived(piece)
    message = _assert_failed((here, wire, response), HeadersTooLong)
    assert message == "the response headers of r.example are too long"


@pytest.mark.parametrize(
    ("headers", "error"), [(b"X: " + b"x" * 20_000, HeadersTooLong), (b"nonsense\r\n\r\n", ValueError)]
)
def test_a_line_of_16_kib_is_too_long(headers: bytes, error: type[Exception]) -> None:
    """Malformed headers fail as such."""
    here, wire, response = _request()
    wire.protocol.dataReceived(HEAD + headers)
    _assert_failed((here, wire, response), error)


def test_informational_responses_count_with_the_final_one() -> None:
    here, wire, response = _request()
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n"
    for _ in range(HEADERS_LIMIT // len(hints)):
        wire.protocol.dataReceived(hints)
    assert not wire.aborted
    wire.protocol.dataReceived(HEAD + b"Content-Length: 0\r\n\r\n")
    _assert_failed((here, wire, response), HeadersTooLong)


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000\r\n\r\n", b"\r\n"])
def test_a_body_may_be_of_any_length(framing: bytes) -> None:
    """It may begin in the piece in which the headers end."""
    _, wire, response = _request()
    body = b"\x00" * 1_000_000
    wire.protocol.dataReceived(HEAD + framing + body[:500_000])
    reading = content(result_of(response))
    for piece in _pieces(body[500_000:], 100_000):
        wire.protocol.dataReceived(piece)
    if framing == b"\r\n":
        wire.protocol.connectionLost(Failure(ConnectionAborted()))
    assert result_of(reading) == body
    assert not wire.aborted


@pytest.mark.parametrize("before", [b"200 OK", b"204 No Content"])
def test_each_response_on_a_connection_has_the_limit(before: bytes) -> None:
    here, wire, response = _request()
    for _ in range(3):
        wire.protocol.dataReceived(_headers_of(40_000, b"HTTP/1.1 " + before + b"\r\n"))
        assert result_of(response).phrase in before
        response = here.get()
    body = b"x" * 200_000
    wire.protocol.dataReceived(_headers_of(40_000, HEAD, b"Content-Length: 200000\r\n\r\n") + body)
    assert result_of(content(result_of(response))) == body
    assert len(here.reactor.tcpClients) == 1

    here.get().addErrback(lambda _: None)
    wire.protocol.dataReceived(_headers_of(70_000))
    assert wire.aborted


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
    _, wire, _ = _request(method=b"POST", body=upload)
    assert wire.producer is upload
    wire.protocol.dataReceived(HEAD + b"Content-Length: 1000000\r\n\r\n")
    for _ in range(5):
        upload.consumer.write(b"more")
        wire.protocol.dataReceived(b"x" * 50_000)
    assert not wire.aborted


def test_a_slow_reader_pauses_the_socket() -> None:
    """Closing aborts the connection: it needs no consent of the peer."""
    _, wire, response = _request()
    wire.protocol.dataReceived(HEAD + b"Connection: close\r\nContent-Length: 10\r\n\r\n12345")
    assert wire.producerState == "paused"
    reading = content(result_of(response))
    assert wire.producerState == "producing"
    assert not wire.aborted
    wire.protocol.dataReceived(b"67890")
    assert result_of(reading) == b"1234567890"
    assert wire.aborted


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
    _, wire, response = _request()
    wire.protocol.dataReceived(HEAD + b"Content-Length: 10\r\n\r\n12345")
    result_of(response).deliverBody(_Leaving(method))
    assert wire.aborted


@pytest.mark.parametrize("closed", [False, True])
def test_an_idle_connection_is_aborted(closed: bool) -> None:
    """A pool may drop one that the peer closed long ago."""
    here, wire, response = _request()
    wire.protocol.dataReceived(HEAD + b"Content-Length: 0\r\n\r\n")
    result_of(response)
    if closed:
        wire.protocol.connectionLost(Failure(ConnectionAborted()))
    here.reactor.advance(here.pool.cachedConnectionTimeout)
    assert wire.aborted is not closed


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
