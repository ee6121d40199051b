"""Connections that nobody can hold up: in memory, and the last few to real servers."""

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


def test_silent_tls() -> None:
    """A peer that accepts and says nothing is aborted after the time to connect; the failure names TLS."""
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


def test_handshake_cancelled() -> None:
    """Who cancels a connection during the handshake aborts it."""
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
def test_no_tls(said: bytes, told: str) -> None:
    """A peer that speaks no TLS, or leaves during the handshake, is a failed handshake, and why is told."""
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
def test_read_size(scheme: bytes) -> None:
    """The socket is read in large pieces, below TLS, too."""
    here = connections(PUBLIC)
    here.connect(scheme + b"://r.example/")
    assert here.accept().bufferSize == READ_SIZE


@pytest.mark.parametrize("scheme", [b"http", b"https"])
def test_no_delay(scheme: bytes) -> None:
    """The HTTP client sees that it speaks over TCP, and has requests sent without delay."""
    here = connections(PUBLIC)
    here.agent.request(b"GET", scheme + b"://r.example/")
    here.reactor.advance(0)
    assert not here.accept().delay


def _asked(**choices: Any) -> tuple[Connections, Wire, Deferred[IResponse]]:
    """A request, sent to a peer that has not answered yet."""
    here = connections(PUBLIC)
    response = here.get(**choices)
    return here, here.accept(), response


def _headers_of(size: int, first: bytes = HEAD, last: bytes = b"Content-Length: 0\r\n\r\n") -> bytes:
    """A block of headers that has that many bytes."""
    line = b"X-Filling: " + b"x" * 87 + b"\r\n"
    lines, rest = divmod(size - len(first) - len(last) - 20, len(line))
    block = first + line * lines + b"X: " + b"x" * (rest + 15) + b"\r\n" + last
    assert len(block) == size
    return block


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1000, 2**14, 2**18])
def test_headers_bounded(size: int) -> None:
    """Headers one byte too long abort the connection, however they arrive; none too long do not."""
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


def test_line_bounded() -> None:
    """A single line is too long from 16 KiB on."""
    here, wire, response = _asked()
    wire.protocol.dataReceived(HEAD + b"X: " + b"x" * 20_000)
    assert wire.aborted
    here.reactor.advance(0)
    assert isinstance(failure_of(response).reasons[0].value, HeadersTooLong)


def test_malformed_headers() -> None:
    """Headers that are none fail as such."""
    here, wire, response = _asked()
    wire.protocol.dataReceived(HEAD + b"nonsense\r\n\r\n")
    assert wire.aborted
    here.reactor.advance(0)
    assert isinstance(failure_of(response).reasons[0].value, ValueError)


def test_informational_bounded() -> None:
    """1xx responses count together with the one that they precede."""
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
def test_body_unbounded(framing: bytes) -> None:
    """A body may be of any length, and begin in the same piece as its headers end."""
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
def test_keep_alive_bounded(before: bytes) -> None:
    """Each response on a connection may have headers up to the limit, and none may have more."""
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


def test_early_body() -> None:
    """A response that begins before the request was sent whole is bounded by its headers only."""
    upload = _Unending()
    _, wire, _ = _asked(method=b"POST", body=upload)
    wire.protocol.dataReceived(HEAD + b"Content-Length: 1000000\r\n\r\n")
    for _ in range(5):
        upload.consumer.write(b"more")
        wire.protocol.dataReceived(b"x" * 50_000)
    assert not wire.aborted


def test_flow_control() -> None:
    """Who reads a body slowly has the socket paused."""
    _, wire, response = _asked()
    wire.protocol.dataReceived(HEAD + b"Content-Length: 10\r\n\r\n12345")
    assert wire.producerState == "paused"
    reading = content(result_of(response))
    assert wire.producerState == "producing"
    wire.protocol.dataReceived(b"67890")
    assert result_of(reading) == b"1234567890"


def test_request_paced() -> None:
    """Who writes a request's body is paced by the socket."""
    upload = _Unending()
    _, wire, _ = _asked(method=b"POST", body=upload)
    assert wire.producer is upload


def test_closing_aborts() -> None:
    """A connection that is not kept is aborted, so that it needs nobody's consent to end."""
    _, wire, response = _asked()
    wire.protocol.dataReceived(HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\n")
    reading = content(result_of(response))
    wire.protocol.dataReceived(b"OK")
    assert result_of(reading) == b"OK"
    assert wire.aborted


class _Receiving(Protocol):
    """Keeps what it is given, piece by piece."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


def _by_tls() -> tuple[Clock, IProtocol, _Receiving]:
    """A clock, a bounded connection whose transport is one of TLS, and its client, which reads a body."""
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


def test_records_together() -> None:
    """What TLS gives of a body record by record, and was read at once, is passed on as one piece."""
    clock, connection, client = _by_tls()
    for record in (b"1", b"2", b"3"):
        connection.dataReceived(record)
    assert client.pieces == []
    clock.advance(0)
    connection.dataReceived(b"4")
    clock.advance(0)
    assert client.pieces == [b"123", b"4"]


def test_records_before_the_end() -> None:
    """What has come of a body before the connection was lost is passed on before that is told."""
    clock, connection, client = _by_tls()
    connection.dataReceived(b"1")
    connection.connectionLost(Failure(ConnectionDone()))
    assert (client.pieces, client.lost) == ([b"1"], True)
    clock.advance(0)
    assert client.pieces == [b"1"]


def test_records_of_the_dropped() -> None:
    """A client that has dropped its connection is given nothing more."""
    clock, connection, client = _by_tls()
    connection.dataReceived(b"1")
    ITCPTransport(client.transport).abortConnection()
    clock.advance(0)
    assert client.pieces == []


class _Fickle(Protocol):
    """Has enough of a body at its first bytes."""

    def __init__(self, leave: str) -> None:
        self._leave = leave

    def dataReceived(self, data: bytes) -> None:
        getattr(self.transport, self._leave)()


@pytest.mark.parametrize("leave", ["loseConnection", "stopProducing"])
def test_leaving_aborts(leave: str) -> None:
    """Who leaves in the middle of a body aborts the connection."""
    _, wire, response = _asked()
    wire.protocol.dataReceived(HEAD + b"Content-Length: 10\r\n\r\n12345")
    result_of(response).deliverBody(_Fickle(leave))
    assert wire.aborted


def test_pool_drops_the_dead() -> None:
    """A pool may drop a connection that its peer closed long ago."""
    here, wire, response = _asked()
    wire.protocol.dataReceived(HEAD + b"Content-Length: 0\r\n\r\n")
    result_of(response)
    wire.protocol.connectionLost(Failure(ConnectionAborted()))
    here.reactor.advance(here.pool.cachedConnectionTimeout)
    assert not wire.aborted


def test_pool_drops_the_idle() -> None:
    """A connection that was idle for too long is aborted."""
    here, wire, _ = _asked()
    wire.protocol.dataReceived(HEAD + b"Content-Length: 0\r\n\r\n")
    here.reactor.advance(here.pool.cachedConnectionTimeout)
    assert wire.aborted


@pytest_twisted.ensureDeferred
async def test_endless_headers(serve: Callable[..., Listening], ca_file: str) -> None:
    """A server whose headers never end is left."""
    server = serve(Endless, AUTHORITY.issue("r.example"))
    with pytest.raises(ResponseFailed) as failed:
        await real_agent(ca_file).request(b"GET", server.url())
    assert isinstance(failed.value.reasons[0].value, HeadersTooLong)
    await server.accepted[0].lost
    assert server.clients() == []


@pytest_twisted.ensureDeferred
async def test_silent_server(serve: Callable[..., Listening], ca_file: str) -> None:
    """A server that accepts and never begins with TLS is left."""
    server = serve(Silent)
    with pytest.raises(ConnectTimedOut, match=r"the TLS handshake with r.example took more than 1 s"):
        await real_agent(ca_file, timeout=1).request(b"GET", server.url())
    await server.accepted[0].lost
    assert server.clients() == []


@pytest_twisted.ensureDeferred
async def test_vanished_server(serve: Callable[..., Listening], ca_file: str) -> None:
    """A server that hears nothing any more keeps no socket open on this side."""
    server = serve(Vanished, AUTHORITY.issue("r.example"))
    response = await real_agent(ca_file).request(b"GET", server.url())
    assert await content(response) == b"hello"
    assert await soon(lambda: server.clients() == [])
