"""Connections through a proxy, in memory."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import TimeoutError as ConnectTimedOut
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IResponse
from zope.interface.verify import verifyObject

from dockmirror.upstream.bounded_endpoint import HEADERS_LIMIT, READ_SIZE, HeadersTooLong
from dockmirror.upstream.proxy import Proxy, ProxyError, ProxySettings
from dockmirror.upstream.tunnel import ANSWER_LIMIT, TunnelEndpoint
from tests.connections import Connections, FakeResolver, Wire, failure_of, result_of

PRIVATE = "10.9.9.9"
HTTP = Proxy.parse("http://user:hidden@proxy.example:3128")
SOCKS = Proxy.parse("socks5h://user:hidden@proxy.example:1080")
OPENED = {HTTP: [b"HTTP/1.1 200 OK\r\n\r\n"], SOCKS: [b"\x05\x00", b"\x05\x00\x00\x01" + bytes(6)]}
both = pytest.mark.parametrize("proxy", [HTTP, SOCKS], ids=["http", "socks5h"])


def _through(proxy: Proxy, **options: Any) -> Connections:
    """Return connections that resolve the proxy's name only."""
    return Connections({"proxy.example": [PRIVATE]}, proxies=ProxySettings(proxy, proxy), **options)


def _open(here: Connections, proxy: Proxy, more: bytes = b"") -> Wire:
    """Open the connection through the proxy, and forget the handshake's bytes."""
    wire = here.accept()
    *before, last = OPENED[proxy]
    for answer in before:
        wire.protocol.dataReceived(answer)
    wire.clear()
    wire.protocol.dataReceived(last + more)
    return wire


def _request(proxy: Proxy) -> tuple[Connections, Wire, Deferred[IResponse]]:
    """Return a request that was sent through a proxy and not answered."""
    here = _through(proxy)
    response = here.get()
    return here, _open(here, proxy), response


class _EventRecorder(Protocol):
    """A protocol that records its events."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def connectionMade(self) -> None:
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.events.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append(reason.type)


def _connect(here: Connections) -> tuple[Deferred[Any], list[object]]:
    """Return a connection on its way, and the events of its protocol."""
    recorder = _EventRecorder()
    endpoint = here.endpoints.endpointForURI(URI.fromBytes(b"http://r.example/"))
    connecting = endpoint.connect(Factory.forProtocol(lambda: recorder))
    here.reactor.advance(0)
    return connecting, recorder.events


@both
def test_a_proxy_may_have_a_private_address(proxy: Proxy) -> None:
    """The mirror does not resolve the upstream's name."""
    here = _through(proxy)
    connecting = here.connect(b"https://r.example:5000/")
    assert here.reactor.tcpClients[0][:2] == (PRIVATE, proxy.port)
    assert not connecting.called


@both
@pytest.mark.parametrize(
    ("addresses", "reason"),
    [(["169.254.169.254"], "proxy.example resolves to 169.254.169.254"), ([], "DNS lookup failed")],
)
def test_a_proxy_without_an_allowed_address_is_named(proxy: Proxy, addresses: list[str], reason: str) -> None:
    """The upstream is not; a metadata service is never allowed."""
    here = _through(proxy, resolver=FakeResolver({"proxy.example": addresses}))
    failed = failure_of(here.connect(b"http://r.example/"))
    assert isinstance(failed, ProxyError)
    assert str(failed).startswith(f"the proxy {proxy} cannot be connected to: {reason}")
    assert here.dialled() == []


@both
def test_an_unreachable_proxy_is_named(proxy: Proxy) -> None:
    here = _through(proxy)
    connecting = here.connect(b"http://r.example/")
    here.reactor.tcpClients[0][2].clientConnectionFailed(here.reactor.connectors[0], Failure(Refused()))
    reason = "cannot be connected to: Connection was refused"
    assert str(failure_of(connecting)).startswith(f"the proxy {proxy} {reason}")


@both
def test_a_connection_is_made_once_the_proxy_has_opened_it(proxy: Proxy) -> None:
    """Bytes that the server has sent by then are delivered."""
    here = _through(proxy)
    uri = URI.fromBytes(b"http://r.example/")
    other = here.endpoints.endpointForURI(uri)
    verifyObject(IStreamClientEndpoint, TunnelEndpoint(other, proxy, "r.example", 80, 1, here.reactor))
    connecting, events = _connect(here)
    assert events == []
    wire = _open(here, proxy, b"hello")
    result_of(connecting)
    wire.protocol.dataReceived(b"again")
    wire.protocol.connectionLost(Failure(ConnectionDone()))
    assert events == ["made", b"hello", b"again", ConnectionDone]


@both
def test_the_server_gets_the_request_as_if_directly(proxy: Proxy) -> None:
    """The proxy is not mentioned in it, and a slow reader pauses the socket."""
    here, wire, response = _request(proxy)
    assert wire.value() == b"GET / HTTP/1.1\r\nHost: r.example\r\n\r\n"
    wire.protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
    assert wire.producerState == "paused"
    result_of(response).deliverBody(Protocol())
    assert wire.producerState == "producing"
    wire.protocol.dataReceived(b"67890")
    here.get()
    assert wire.value().count(b"GET /") == 2, "the connection is kept for the next request"


@both
def test_tls_is_spoken_with_the_server(proxy: Proxy) -> None:
    """By its name."""
    here = _through(proxy)
    connecting = here.connect(b"https://r.example/")
    wire = _open(here, proxy)
    assert wire.value().startswith(b"\x16\x03")
    assert b"\x00\x09r.example" in wire.value()
    here.reactor.advance(10)
    assert "the TLS handshake with r.example took more than 10 s" in str(failure_of(connecting))
    assert wire.aborted


@both
def test_limits_apply_behind_a_proxy(proxy: Proxy) -> None:
    here, wire, response = _request(proxy)
    assert wire.bufferSize == READ_SIZE
    assert not wire.delay
    wire.protocol.dataReceived(b"HTTP/1.1 200 OK\r\n" + b"X: yyyyyyyyyyyy\r\n" * (HEADERS_LIMIT // 16))
    assert wire.aborted
    here.reactor.advance(0)
    assert isinstance(failure_of(response).reasons[0].value, HeadersTooLong)


@pytest.mark.parametrize(
    ("proxy", "answer", "message"),
    [
        (
            HTTP,
            b"HTTP/1.1 407 X\r\n\r\n",
            "answered 407 Proxy Authentication Required to CONNECT r.example:80",
        ),
        (HTTP, b"HTTP/1.1 200 OK\r\nX: " + b"y" * ANSWER_LIMIT, "answered with more than 65536 bytes"),
        (HTTP, b"\x05\xff", "does not speak HTTP/1.1"),
        (SOCKS, b"\x05\xff", "requires an unsupported login method"),
        (SOCKS, b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak SOCKS5"),
    ],
)
def test_a_refusal_names_the_proxy_and_its_reason(proxy: Proxy, answer: bytes, message: str) -> None:
    """The protocol is not connected."""
    here = _through(proxy)
    connecting, events = _connect(here)
    wire = here.accept()
    wire.protocol.dataReceived(answer)
    refused = failure_of(connecting)
    assert isinstance(refused, ProxyError)
    assert str(refused).startswith(f"the proxy {proxy} {message}")
    assert wire.aborted
    wire.protocol.dataReceived(b"more")
    here.reactor.advance(0)
    assert events == []
    assert here.reactor.getDelayedCalls() == []


@both
def test_the_limit_counts_all_pieces_of_an_answer(proxy: Proxy) -> None:
    here = _through(proxy)
    connecting = here.connect(b"http://r.example/")
    wire = here.accept()
    wire.protocol.dataReceived(OPENED[proxy][0][:1])
    wire.protocol.dataReceived(b"TTP/1.1 200 OK\r\nX: " if proxy is HTTP else b"\x00\x05\x00\x00")
    for _ in range(ANSWER_LIMIT // 1024):
        if not wire.aborted:
            wire.protocol.dataReceived(b"y" * 1024)
    assert isinstance(failure_of(connecting), ProxyError)


@both
@pytest.mark.parametrize("ending", ["closed", "silent", "cancelled"])
def test_a_proxy_that_does_not_answer_is_left(proxy: Proxy, ending: str) -> None:
    here = _through(proxy, connect_timeout=3)
    connecting, events = _connect(here)
    wire = here.accept()
    here.reactor.advance(2.9)
    assert not wire.aborted
    error: type[BaseException]
    if ending == "closed":
        wire.protocol.connectionLost(Failure(ConnectionDone()))
        error, message = ProxyError, f"the proxy {proxy} closed the connection without answering"
    elif ending == "silent":
        here.reactor.advance(0.1)
        error, message = ConnectTimedOut, f"the proxy {proxy} connecting to r.example:80 took more than 3 s"
    else:
        connecting.cancel()
        error, message = CancelledError, ""
    failed = failure_of(connecting)
    assert type(failed) is error
    assert message in str(failed)
    assert wire.aborted is (ending != "closed")
    here.reactor.advance(0)
    assert events == []
    assert here.reactor.getDelayedCalls() == []


def test_connecting_to_a_proxy_has_the_timeout() -> None:
    here = _through(HTTP, connect_timeout=3)
    connecting = here.connect(b"http://r.example/")
    here.reactor.advance(3)
    late = failure_of(connecting)
    assert isinstance(late, ConnectTimedOut)
    assert "connecting to proxy.example took more than 3 s" in str(late)


def test_tls_with_a_proxy_uses_the_proxys_name() -> None:
    """If it fails the error says why."""
    here = _through(Proxy.parse("https://user:hidden@proxy.example"))
    connecting, events = _connect(here)
    wire = here.accept()
    assert wire.value().startswith(b"\x16\x03")
    assert b"\x00\x0dproxy.example" in wire.value()
    assert b"CONNECT" not in wire.value()
    wire.protocol.dataReceived(b"HTTP/1.0 400 Bad Request\r\n\r\n")
    wire.protocol.connectionLost(Failure(ConnectionDone()))
    failed = failure_of(connecting)
    assert isinstance(failed, ProxyError)
    message = "cannot be used: An SSL error occurred: TLS handshake with proxy.example: wrong version number"
    assert str(failed) == f"the proxy https://proxy.example:443 {message}."
    assert events == []


@both
def test_no_text_shows_the_login(proxy: Proxy) -> None:
    here = _through(proxy)
    assert "hidden" not in repr(here.endpoints.endpointForURI(URI.fromBytes(b"https://r.example/")))
    assert "hidden" not in repr(here.endpoints.endpointForURI(URI.fromBytes(b"https://127.0.0.1/")))
