"""Connections through a proxy, in memory."""

from __future__ import annotations

from typing import Literal

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import TimeoutError as ConnectTimedOut
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI
from zope.interface.verify import verifyObject

from dockmirror.upstream.bounded_endpoint import HEADERS_LIMIT, READ_SIZE, HeadersTooLong
from dockmirror.upstream.proxy import Proxy, ProxyError, ProxySettings
from dockmirror.upstream.tunnel import ANSWER_LIMIT, TunnelEndpoint
from tests.connections import Connections, Wire, failure_of, result_of

PRIVATE = "10.9.9.9"
HTTP = Proxy.parse("http://user:hidden@proxy.example:3128")
HTTPS = Proxy.parse("https://user:hidden@proxy.example")
SOCKS = Proxy.parse("socks5h://user:hidden@proxy.example:1080")
OPENING = {HTTP: [b"HTTP/1.1 200 OK\r\n\r\n"], SOCKS: [b"\x05\x00", b"\x05\x00\x00\x01" + bytes(6)]}
both = pytest.mark.parametrize("proxy", [HTTP, SOCKS], ids=["http", "socks5h"])


class EventRecorder(Protocol):
    """A protocol that records its events."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def connectionMade(self) -> None:
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.events.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append(reason.type)


class Tunnel(Connections):
    """A connection through a proxy, which the test plays; only the proxy's name can be resolved.

    :ivar events: of the protocol that is to be connected.
    """

    def __init__(self, proxy: Proxy, addresses: tuple[str, ...] = (PRIVATE,)) -> None:
        proxies = ProxySettings(proxy, proxy)
        super().__init__({"proxy.example": list(addresses)}, proxies=proxies, connect_timeout=3)
        self.proxy = proxy

    def begin(self, url: bytes = b"http://r.example/") -> None:
        """Begin to connect to a host."""
        protocol = EventRecorder()
        self.events = protocol.events
        endpoint = self.endpoints.endpointForURI(URI.fromBytes(url))
        self.connecting = endpoint.connect(Factory.forProtocol(lambda: protocol))
        self.reactor.advance(0)

    def open(self, more: bytes = b"") -> Wire:
        """Open the connection as the proxy does, and forget the handshake's bytes."""
        wire = self.accept()
        *before, last = OPENING[self.proxy]
        for answer in before:
            wire.protocol.dataReceived(answer)
        wire.clear()
        wire.protocol.dataReceived(last + more)
        return wire

    def assert_failed(self, error: type[BaseException], reason: str) -> None:
        """Expect that the protocol was not connected, and that nothing is left."""
        failed = failure_of(self.connecting)
        assert isinstance(failed, error)
        assert reason in str(failed)
        assert "hidden" not in str(failed)
        self.reactor.advance(0)
        assert self.events == []
        assert self.reactor.getDelayedCalls() == []


@both
@pytest.mark.parametrize(
    ("addresses", "reason"),
    [
        ((PRIVATE,), "Connection was refused"),
        (("169.254.169.254",), "proxy.example resolves to 169.254.169.254"),
        ((), "DNS lookup failed"),
    ],
)
def test_a_proxy_that_cannot_be_connected_to_is_named(
    proxy: Proxy, addresses: tuple[str, ...], reason: str
) -> None:
    """The upstream is not.  The proxy may have a private address, but not a metadata service's."""
    tunnel = Tunnel(proxy, addresses)
    tunnel.begin(b"http://r.example:5000/")
    if addresses == (PRIVATE,):
        ((host, port, factory, *_),) = tunnel.reactor.tcpClients
        assert (host, port) == (PRIVATE, proxy.port)
        factory.clientConnectionFailed(tunnel.reactor.connectors[0], Failure(Refused()))
    else:
        assert tunnel.dialled() == []
    tunnel.assert_failed(ProxyError, f"the proxy {proxy} cannot be connected to: {reason}")


@both
def test_a_connection_is_made_once_the_proxy_has_opened_it(proxy: Proxy) -> None:
    """Bytes that the server has sent by then are delivered."""
    tunnel = Tunnel(proxy)
    other = tunnel.endpoints.endpointForURI(URI.fromBytes(b"http://r.example/"))
    verifyObject(IStreamClientEndpoint, TunnelEndpoint(other, proxy, "r.example", 80, 1, tunnel.reactor))
    assert "hidden" not in repr(other)
    tunnel.begin()
    assert tunnel.events == []
    wire = tunnel.open(b"hello")
    result_of(tunnel.connecting)
    wire.protocol.dataReceived(b"again")
    wire.protocol.connectionLost(Failure(ConnectionDone()))
    assert tunnel.events == ["made", b"hello", b"again", ConnectionDone]


@both
def test_the_server_gets_the_request_as_if_directly(proxy: Proxy) -> None:
    """The proxy is not mentioned in it, and a slow reader pauses the socket."""
    tunnel = Tunnel(proxy)
    response = tunnel.get()
    wire = tunnel.open()
    assert wire.value() == b"GET / HTTP/1.1\r\nHost: r.example\r\n\r\n"
    wire.protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
    assert wire.producerState == "paused"
    result_of(response).deliverBody(Protocol())
    assert wire.producerState == "producing"
    wire.protocol.dataReceived(b"67890")
    tunnel.get()
    assert wire.value().count(b"GET /") == 2, "the connection is kept for the next request"


@both
def test_tls_is_spoken_with_the_server(proxy: Proxy) -> None:
    """By its name."""
    tunnel = Tunnel(proxy)
    tunnel.begin(b"https://r.example/")
    wire = tunnel.open()
    assert wire.value().startswith(b"\x16\x03")
    assert b"\x00\x09r.example" in wire.value()
    tunnel.reactor.advance(3)
    assert "the TLS handshake with r.example took more than 3 s" in str(failure_of(tunnel.connecting))
    assert wire.aborted


@both
def test_limits_apply_behind_a_proxy(proxy: Proxy) -> None:
    tunnel = Tunnel(proxy)
    response = tunnel.get()
    wire = tunnel.open()
    assert wire.bufferSize == READ_SIZE
    assert not wire.delay
    wire.protocol.dataReceived(b"HTTP/1.1 200 OK\r\n" + b"X: yyyyyyyyyyyy\r\n" * (HEADERS_LIMIT // 16))
    assert wire.aborted
    tunnel.reactor.advance(0)
    assert isinstance(failure_of(response).reasons[0].value, HeadersTooLong)


Ending = bytes | Literal["closed", "silent", "cancelled"]
LONG = b"y" * ANSWER_LIMIT


@pytest.mark.parametrize(
    ("proxy", "ending", "error", "message"),
    [
        (HTTP, b"HTTP/1.1 407 X\r\n\r\n", ProxyError, "answered 407 Proxy Authentication Required"),
        (HTTP, b"HTTP/1.1 200 OK\r\nX: " + LONG, ProxyError, "answered with more than 65536 bytes"),
        (HTTP, b"\x05\xff", ProxyError, "does not speak HTTP/1.1"),
        (SOCKS, b"\x05\xff", ProxyError, "requires an unsupported login method"),
        (SOCKS, b"HTTP/1.1 400 Bad Request\r\n\r\n", ProxyError, "does not speak SOCKS5"),
        (SOCKS, b"\x05\x00\x05\x00\x00" + LONG, ProxyError, "does not speak SOCKS5"),
        (HTTP, "closed", ProxyError, "closed the connection without answering"),
        (SOCKS, "closed", ProxyError, "closed the connection without answering"),
        (HTTP, "silent", ConnectTimedOut, "connecting to r.example:80 took more than 3 s"),
        (SOCKS, "silent", ConnectTimedOut, "connecting to r.example:80 took more than 3 s"),
        (HTTP, "cancelled", CancelledError, ""),
        (SOCKS, "cancelled", CancelledError, ""),
    ],
)
def test_a_proxy_that_opens_no_connection_is_left(
    proxy: Proxy, ending: Ending, error: type[BaseException], message: str
) -> None:
    """The error names it; the limit counts all pieces of its answer."""
    tunnel = Tunnel(proxy)
    tunnel.begin()
    wire = tunnel.accept()
    tunnel.reactor.advance(2.9)
    assert not wire.aborted
    match ending:
        case "closed":
            wire.protocol.connectionLost(Failure(ConnectionDone()))
        case "silent":
            tunnel.reactor.advance(0.1)
        case "cancelled":
            tunnel.connecting.cancel()
        case bytes():
            for start in range(0, len(ending), 1024):
                wire.protocol.dataReceived(ending[start : start + 1024])
    assert wire.aborted is (ending != "closed")
    tunnel.assert_failed(error, f"the proxy {proxy} {message}" if message else "")


def test_connecting_to_a_proxy_has_the_timeout() -> None:
    tunnel = Tunnel(HTTP)
    tunnel.begin()
    tunnel.reactor.advance(3)
    tunnel.assert_failed(ConnectTimedOut, "connecting to proxy.example took more than 3 s")


def test_tls_with_a_proxy_uses_the_proxys_name() -> None:
    """If it fails the error says why."""
    tunnel = Tunnel(HTTPS)
    tunnel.begin()
    wire = tunnel.accept()
    assert wire.value().startswith(b"\x16\x03")
    assert b"\x00\x0dproxy.example" in wire.value()
    assert b"CONNECT" not in wire.value()
    wire.protocol.dataReceived(b"HTTP/1.0 400 Bad Request\r\n\r\n")
    wire.protocol.connectionLost(Failure(ConnectionDone()))
    message = "cannot be used: An SSL error occurred: TLS handshake with proxy.example: wrong version number"
    tunnel.assert_failed(ProxyError, f"the proxy https://proxy.example:443 {message}.")
