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
from twisted.internet.error import TimeoutError as ConnectTimedOut
from twisted.internet.interfaces import (
    IHandshakeListener,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    ISSLTransport,
    IStreamClientEndpoint,
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
from tests.listening import AUTHORITY, HEAD, Endless, Listening, Silent, Vanished, real_agent, soon


def test_a_peer_that_is_silent_in_the_tls_handshake_is_aborted() -> None:
    """The error names TLS."""
    here = connections(PUBLIC)
    connecting = here.connect(b"https://r.example/")
    wire = here.accept()
    here.reactor.advance(9)
    assert not wire.aborted
    here.reactor.advance(1)
    late = failure_of(connecting)
    assert isinstance(late, HandshakeTimedOut)
    assert "the TLS handshake with r.example took more than 10 s" in str(late)
    assert wire.aborted


def test_cancelling_during_the_handshake_aborts() -> None:
    here = connections(PUBLIC)
    connecting = here.connect(b"https://r.example/")
    wire = here.accept()
    connecting.cancel()
    assert isinstance(failure_of(connecting), CancelledError)
    assert wire.aborted
    here.reactor.advance(0)
    assert here.reactor.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("said", "told"), [(b"HTTP/1.0 400 Bad\r\n\r\n", "wrong version number"), (b"", "in a non-clean fashion")]
)
def test_a_failed_handshake_says_why(said: bytes, told: str) -> None:
    """The peer speaks no TLS, or leaves."""
    here = connections(PUBLIC)
    connecting = here.connect(b"https://r.example/")
    wire = here.accept()
    if said:
        wire.protocol.dataReceived(said)
        assert wire.disconnecting
    wire.protocol.connectionLost(Failure(ConnectionAborted()))
    failed = failure_of(connecting)
    assert isinstance(failed, SSLError)
    assert "TLS handshake with r.example: " in str(failed)
    assert told in str(failed)


@pytest.mark.parametrize("scheme", [b"http", b"https"])
def test_the_socket_is_read_in_large_pieces(scheme: bytes) -> None:
    """Below TLS, too."""
    here = connections(PUBLIC)
    here.connect(scheme + b"://r.example/")
    assert here.accept().bufferSize == READ_SIZE


@pytest.mark.parametrize("scheme", [b"http", b"https"])
def test_requests_are_sent_without_delay(scheme: bytes) -> None:
    """The HTTP client recognises TCP."""
    here = connections(PUBLIC)
    here.agent.request(b"GET", scheme + b"://r.example/")
    here.reactor.advance(0)
    assert not here.accept().delay


def _asked(**choices: Any) -> tuple[Connections, Wire, Deferred[IResponse]]:
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


@pytest.mark.parametrize("size", [1000, 2**14, 2**18])
def test_headers_that_are_too_long_abort(size: int) -> None:
    """One byte decides, in whatever pieces they arrive."""
    here, wire, response = _asked()
    for piece in _pieces(_headers_of(HEADERS_LIMIT), size):
        wire.protocol.dataReceived(piece)
    assert result_of(response).code == 200
    assert not wire.aborted

    here, wire, response = _asked()
    for piece in _pieces(_headers_of(HEADERS_LIMIT + 1), size):
        wire.protocol.dataReceived(piece)
    assert wire.aborted
    here.reactor.advance(0)
    failed = failure_of(response)
    assert isinstance(failed, ResponseFailed)
    assert not isinstance(failed, ResponseNeverReceived)  # which would be tried again
    assert isinstance(failed.reasons[0].value, HeadersTooLong)
    assert "the response headers of r.example are too long" in str(failed.reasons[0].value)


def test_a_line_of_16_kib_is_too_long() -> None:
    here, wire, response = _asked()
    wire.protocol.dataReceived(HEAD + b"X: " + b"x" * 20_000)
    assert wire.aborted
    here.reactor.advance(0)
    assert isinstance(failure_of(response).reasons[0].value, HeadersTooLong)


def test_malformed_headers_fail_as_such() -> None:
    here, wire, response = _asked()
    wire.protocol.dataReceived(HEAD + b"nonsense\r\n\r\n")
    assert wire.aborted
    here.reactor.advance(0)
    assert isinstance(failure_of(response).reasons[0].value, ValueError)


def test_informational_responses_count_with_the_final_one() -> None:
    here, wire, response = _asked()
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n"
    for _ in range(HEADERS_LIMIT // len(hints)):
        wire.protocol.dataReceived(hints)
    assert not wire.aborted
    wire.protocol.dataReceived(HEAD + b"Content-Length: 0\r\n\r\n")
    assert wire.aborted
    here.reactor.advance(0)
    assert isinstance(failure_of(response).reasons[0].value, HeadersTooLong)


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000\r\n\r\n", b"\r\n"])
def test_a_body_may_be_of_any_length(framing: bytes) -> None:
    """It may begin in the piece in which the headers end."""
    _, wire, response = _asked()
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
    here, wire, response = _asked()
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
    upload = _Unending()
    _, wire, _ = _asked(method=b"POST", body=upload)
    wire.protocol.dataReceived(HEAD + b"Content-Length: 1000000\r\n\r\n")
    for _ in range(5):
        upload.consumer.write(b"more")
        wire.protocol.dataReceived(b"x" * 50_000)
    assert not wire.aborted


def test_a_slow_reader_pauses_the_socket() -> None:
    _, wire, response = _asked()
    wire.protocol.dataReceived(HEAD + b"Content-Length: 10\r\n\r\n12345")
    assert wire.producerState == "paused"
    reading = content(result_of(response))
    assert wire.producerState == "producing"
    wire.protocol.dataReceived(b"67890")
    assert result_of(reading) == b"1234567890"


def test_the_socket_paces_a_request_body() -> None:
    upload = _Unending()
    _, wire, _ = _asked(method=b"POST", body=upload)
    assert wire.producer is upload


def test_closing_aborts_the_connection() -> None:
    """It needs no consent of the peer."""
    _, wire, response = _asked()
    wire.protocol.dataReceived(HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\n")
    reading = content(result_of(response))
    wire.protocol.dataReceived(b"OK")
    assert result_of(reading) == b"OK"
    assert wire.aborted


class _Receiving(Protocol):
    """A protocol that keeps the received pieces."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


def _by_tls() -> tuple[Clock, IProtocol, _Receiving]:
    """Return a clock, a bounded connection over TLS, and its client, which reads a body."""
    clock, client, opened = Clock(), _Receiving(), list[IProtocol]()

    @implementer(IStreamClientEndpoint)
    class Connecting:
        def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
            protocol = protocolFactory.buildProtocol(IPv4Address("TCP", PUBLIC, 443))
            assert protocol is not None
            transport = StringTransport()
            directlyProvides(transport, ISSLTransport)
            protocol.makeConnection(transport)
            IHandshakeListener(protocol).handshakeCompleted()
            opened.append(protocol)
            return succeed(protocol)

    factory = Factory.forProtocol(lambda: client)
    assert result_of(BoundedEndpoint(Connecting(), "r.example", 10.0, clock).connect(factory)) is client
    IPushProducer(opened[0]).pauseProducing()
    return clock, opened[0], client


def test_tls_records_of_one_read_are_one_piece() -> None:
    clock, connection, client = _by_tls()
    for record in (b"1", b"2", b"3"):
        connection.dataReceived(record)
    assert client.pieces == []
    clock.advance(0)
    connection.dataReceived(b"4")
    clock.advance(0)
    assert client.pieces == [b"123", b"4"]


def test_received_records_are_delivered_before_the_loss() -> None:
    clock, connection, client = _by_tls()
    connection.dataReceived(b"1")
    connection.connectionLost(Failure(ConnectionDone()))
    assert (client.pieces, client.lost) == ([b"1"], True)
    clock.advance(0)
    assert client.pieces == [b"1"]


def test_a_client_that_dropped_its_connection_gets_nothing_more() -> None:
    clock, connection, client = _by_tls()
    connection.dataReceived(b"1")
    ITCPTransport(client.transport).abortConnection()
    clock.advance(0)
    assert client.pieces == []


class _Fickle(Protocol):
    """A protocol that stops at its first bytes."""

    def __init__(self, leave: str) -> None:
        self._leave = leave

    def dataReceived(self, data: bytes) -> None:
        getattr(self.transport, self._leave)()


@pytest.mark.parametrize("leave", ["loseConnection", "stopProducing"])
def test_leaving_within_a_body_aborts(leave: str) -> None:
    _, wire, response = _asked()
    wire.protocol.dataReceived(HEAD + b"Content-Length: 10\r\n\r\n12345")
    result_of(response).deliverBody(_Fickle(leave))
    assert wire.aborted


def test_a_pool_may_drop_a_connection_that_was_closed_long_ago() -> None:
    here, wire, response = _asked()
    wire.protocol.dataReceived(HEAD + b"Content-Length: 0\r\n\r\n")
    result_of(response)
    wire.protocol.connectionLost(Failure(ConnectionAborted()))
    here.reactor.advance(here.pool.cachedConnectionTimeout)
    assert not wire.aborted


def test_an_idle_connection_is_aborted() -> None:
    here, wire, _ = _asked()
    wire.protocol.dataReceived(HEAD + b"Content-Length: 0\r\n\r\n")
    here.reactor.advance(here.pool.cachedConnectionTimeout)
    assert wire.aborted


@pytest_twisted.ensureDeferred
async def test_a_server_with_endless_headers_is_left(serve: Callable[..., Listening], ca_file: str) -> None:
    server = serve(Endless, AUTHORITY.issue("r.example"))
    with pytest.raises(ResponseFailed) as failed:
        await real_agent(ca_file).request(b"GET", server.url())
    assert isinstance(failed.value.reasons[0].value, HeadersTooLong)
    await server.accepted[0].lost
    assert server.clients() == []


@pytest_twisted.ensureDeferred
async def test_a_server_that_never_begins_tls_is_left(serve: Callable[..., Listening], ca_file: str) -> None:
    server = serve(Silent)
    with pytest.raises(ConnectTimedOut, match=r"the TLS handshake with r.example took more than 1 s"):
        await real_agent(ca_file, timeout=1).request(b"GET", server.url())
    await server.accepted[0].lost
    assert server.clients() == []


@pytest_twisted.ensureDeferred
async def test_a_vanished_server_holds_no_socket(serve: Callable[..., Listening], ca_file: str) -> None:
    server = serve(Vanished, AUTHORITY.issue("r.example"))
    response = await real_agent(ca_file).request(b"GET", server.url())
    assert await content(response) == b"hello"
    assert await soon(lambda: server.clients() == [])
