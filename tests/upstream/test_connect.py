"""Connections to an upstream: in memory, and the last few to real servers on the loopback interface."""

# mypy: allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped, unused-ignore]
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from treq import content
from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectError, ConnectionAborted, DNSLookupError, SSLError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import TimeoutError as ConnectTimedOut
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IOpenSSLServerConnectionCreator,
    IResolutionReceiver,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.tcp import Client
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseFailed, ResponseNeverReceived
from twisted.web.error import SchemeNotSupported
from twisted.web.iweb import UNKNOWN_LENGTH, IAgentEndpointFactory, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import directlyProvides, implementer
from zope.interface.verify import verifyObject

from dockmirror.upstream.addresses import AllowedAddresses
from dockmirror.upstream.connect import (
    HEADERS_LIMIT,
    READ_SIZE,
    AddressRefused,
    Endpoints,
    HeadersTooLong,
    threaded_resolver,
    tls_policy,
)

reactor: Any = _reactor
PUBLIC, ALSO_PUBLIC, PUBLIC6, ALSO_PUBLIC6 = "8.8.8.8", "8.8.4.4", "2606:4700::1", "2606:4700::2"


@implementer(IHostResolution)
class _Resolution:
    name = "resolved in memory"

    def cancel(self) -> None:
        raise NotImplementedError


@implementer(IHostnameResolver)
class _FakeResolver:
    """Knows some names, and no others; answers late where it is told to wait."""

    def __init__(self, names: dict[str, list[str]], when: Callable[[], Deferred[None]] | None = None) -> None:
        self._names = names
        self._when = when or (lambda: succeed(None))

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[Any] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        resolutionReceiver.resolutionBegan(_Resolution())
        self._when().addCallback(lambda _: self._answer(resolutionReceiver, hostName, portNumber))
        return _Resolution()

    def _answer(self, receiver: IResolutionReceiver, name: str, port: int) -> None:
        for address in self._names.get(name, []):
            receiver.addressResolved((IPv6Address if ":" in address else IPv4Address)("TCP", address, port))
        receiver.resolutionComplete()


class _Wire(StringTransport):
    """A TCP connection in memory: aborted, it is lost in the reactor's next turn."""

    bufferSize = 0

    def __init__(self, reactor: MemoryReactorClock, protocol: Any) -> None:
        super().__init__(lenient=True)
        directlyProvides(self, ITCPTransport)
        self.reactor = reactor
        self.protocol = protocol
        self.aborted = False
        self.delay = True

    def abortConnection(self) -> None:
        self.aborted = True
        self.reactor.callLater(0, self.protocol.connectionLost, Failure(ConnectionAborted()))

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.delay = not enabled


class _World:
    """Endpoints over a reactor in memory, and what their connections come to."""

    def __init__(self, names: dict[str, list[str]], **choices: Any) -> None:
        self.reactor = MemoryReactorClock()
        choices.setdefault("addresses", AllowedAddresses([]))
        choices.setdefault("resolver", _FakeResolver(names))
        self.endpoints = Endpoints(self.reactor, tls=tls_policy(), **choices)
        self.pool = HTTPConnectionPool(self.reactor)
        self.agent = Agent.usingEndpointFactory(self.reactor, self.endpoints, self.pool)

    def connect(self, url: bytes) -> Deferred[Any]:
        connecting = self.endpoints.endpointForURI(URI.fromBytes(url)).connect(Factory.forProtocol(Protocol))
        self.reactor.advance(0)
        return connecting

    def dialled(self) -> list[str]:
        return [host for host, *_ in self.reactor.tcpClients]

    def accept(self) -> _Wire:
        """The peer that was dialled last accepts."""
        host, port, factory, *_ = self.reactor.tcpClients[-1]
        protocol: Any = factory.buildProtocol(IPv4Address("TCP", host, port))
        wire = _Wire(self.reactor, protocol)
        protocol.makeConnection(wire)
        return wire

    def get(self, method: bytes = b"GET", body: Any = None) -> Deferred[IResponse]:
        asked: Deferred[IResponse] = self.agent.request(method, b"http://r.example/", None, body)
        self.reactor.advance(0)
        return asked


def _world(*addresses: str, **choices: Any) -> _World:
    return _World({"r.example": list(addresses)}, **choices)


def _failure_of(waiting: Deferred[Any]) -> Any:
    """The exception that a Deferred has failed with."""
    results: list[Any] = []
    waiting.addBoth(results.append)
    assert results, "nothing has happened"
    assert isinstance(results[0], Failure)
    return results[0].value


def _result_of(waiting: Deferred[Any]) -> Any:
    results: list[Any] = []
    waiting.addBoth(results.append)
    assert results, "nothing has happened"
    assert not isinstance(results[0], Failure), results[0]
    return results[0]


def test_interfaces() -> None:
    """Endpoints are what an Agent takes, and give what it connects with."""
    endpoints = _world(PUBLIC).endpoints
    verifyObject(IAgentEndpointFactory, endpoints)
    verifyObject(IPolicyForHTTPS, tls_policy())
    for url in (b"http://r.example/", b"https://r.example/"):
        verifyObject(IStreamClientEndpoint, endpoints.endpointForURI(URI.fromBytes(url)))


def test_other_scheme() -> None:
    """There are no connections but for http and https."""
    with pytest.raises(SchemeNotSupported):
        _world(PUBLIC).endpoints.endpointForURI(URI.fromBytes(b"ftp://r.example/"))


def test_refused() -> None:
    """Where every address is refused nothing is dialled, and the failure is the policy's sentence."""
    here = _world("10.1.2.3", "::1")
    refused = _failure_of(here.connect(b"https://r.example/"))
    assert isinstance(refused, AddressRefused)
    assert "r.example resolves to 10.1.2.3, which is private" in str(refused)
    assert here.dialled() == []


def test_some_refused() -> None:
    """Of several addresses only those that are allowed are dialled."""
    here = _world("10.1.2.3", PUBLIC, "::ffff:10.1.2.3")
    here.connect(b"https://r.example/")
    here.reactor.pump([0.5, 0.5])
    assert here.dialled() == [PUBLIC]


@pytest.mark.parametrize("literal", ["127.0.0.1", "[::1]", "[::ffff:169.254.169.254]"])
def test_literal_refused(literal: str) -> None:
    """A literal address is judged like one that a name resolved to."""
    address = literal.strip("[]")
    here = _World({address: [address]})
    assert isinstance(_failure_of(here.connect(f"http://{literal}/".encode())), AddressRefused)


@pytest.mark.parametrize(
    "addresses", [AllowedAddresses(["r.example"]), AllowedAddresses([], [ip_network("10.0.0.0/8")])]
)
def test_configured(addresses: AllowedAddresses) -> None:
    """What the operator configured is dialled."""
    here = _world("10.1.2.3", addresses=addresses)
    here.connect(b"http://r.example:5000/")
    assert here.dialled() == ["10.1.2.3"]
    assert here.reactor.tcpClients[0][1] == 5000


def test_families_alternate() -> None:
    """IPv6 and IPv4 are dialled in turn, 0.3 s apart, while none answers."""
    here = _world(PUBLIC6, ALSO_PUBLIC6, PUBLIC, ALSO_PUBLIC)
    here.connect(b"http://r.example/")
    assert here.dialled() == [PUBLIC6]
    here.reactor.advance(0.3)
    assert here.dialled() == [PUBLIC6, PUBLIC]
    here.reactor.pump([0.3, 0.3])
    assert here.dialled() == [PUBLIC6, PUBLIC, ALSO_PUBLIC6, ALSO_PUBLIC]


def test_first_wins() -> None:
    """The first address that answers is used, and the others are given up."""
    here = _world(PUBLIC, ALSO_PUBLIC, PUBLIC6)
    connecting = here.connect(b"http://r.example/")
    here.reactor.advance(0.3)
    here.accept()
    assert isinstance(_result_of(connecting), Protocol)
    here.reactor.advance(5)
    assert here.dialled() == [PUBLIC, PUBLIC6]
    assert here.reactor.connectors[0].stoppedConnecting


def test_all_fail() -> None:
    """Where no address answers, the failure is one of the connections'."""
    here = _world(PUBLIC, ALSO_PUBLIC)
    connecting = here.connect(b"http://r.example/")
    here.reactor.advance(0.3)
    for (*_, factory, _timeout, _bind), connector in zip(
        here.reactor.tcpClients, here.reactor.connectors, strict=True
    ):
        factory.clientConnectionFailed(connector, Failure(Refused()))
    assert isinstance(_failure_of(connecting), Refused)


@pytest.mark.parametrize("name", ["unknown.example", "a..example", "a" * 64 + ".example"])
def test_no_address(name: str) -> None:
    """A name without an address, and what cannot be a name, is a failed lookup."""
    assert isinstance(_failure_of(_world(PUBLIC).connect(f"http://{name}/".encode())), DNSLookupError)


def test_slow_resolver() -> None:
    """The time to connect includes the name's resolution; an answer after it is of no consequence."""
    answer: Deferred[None] = Deferred()
    here = _world(PUBLIC, resolver=_FakeResolver({"r.example": [PUBLIC]}, lambda: answer), connect_timeout=3)
    connecting = here.connect(b"http://r.example/")
    here.reactor.advance(3)
    late = _failure_of(connecting)
    assert isinstance(late, ConnectTimedOut)
    assert "connecting to r.example took more than 3 s" in str(late)
    answer.callback(None)
    here.reactor.advance(1)
    assert here.dialled() == []


def test_slow_addresses() -> None:
    """The time to connect is for all addresses together; then they are given up."""
    here = _world(PUBLIC, ALSO_PUBLIC)
    connecting = here.connect(b"http://r.example/")
    here.reactor.pump([0.3, 9.8])
    assert isinstance(_failure_of(connecting), ConnectTimedOut)
    assert all(connector.stoppedConnecting for connector in here.reactor.connectors)
    assert here.reactor.getDelayedCalls() == []


def test_cancelled() -> None:
    """Who cancels a connection leaves nothing behind."""
    here = _world(PUBLIC, ALSO_PUBLIC)
    connecting = here.connect(b"http://r.example/")
    connecting.cancel()
    assert not isinstance(_failure_of(connecting), ConnectError)
    assert here.reactor.connectors[0].stoppedConnecting
    assert here.reactor.getDelayedCalls() == []


def test_silent_tls() -> None:
    """A peer that accepts and says nothing is aborted after the time to connect; the failure names TLS."""
    here = _world(PUBLIC)
    connecting = here.connect(b"https://r.example/")
    wire = here.accept()
    here.reactor.advance(9)
    assert not wire.aborted
    here.reactor.advance(1)
    late = _failure_of(connecting)
    assert isinstance(late, ConnectTimedOut)
    assert "the TLS handshake with r.example took more than 10 s" in str(late)
    assert wire.aborted


def test_handshake_cancelled() -> None:
    """Who cancels a connection during the handshake aborts it."""
    here = _world(PUBLIC)
    connecting = here.connect(b"https://r.example/")
    wire = here.accept()
    connecting.cancel()
    assert isinstance(_failure_of(connecting), CancelledError)
    assert wire.aborted
    here.reactor.advance(0)
    assert here.reactor.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("said", "told"), [(b"HTTP/1.0 400 Bad\r\n\r\n", "wrong version number"), (b"", "in a non-clean fashion")]
)
def test_no_tls(said: bytes, told: str) -> None:
    """A peer that speaks no TLS, or leaves during the handshake, is a failed handshake, and why is told."""
    here = _world(PUBLIC)
    connecting = here.connect(b"https://r.example/")
    wire = here.accept()
    if said:
        wire.protocol.dataReceived(said)
        assert wire.disconnecting
    wire.protocol.connectionLost(Failure(ConnectionAborted()))
    failed = _failure_of(connecting)
    assert isinstance(failed, SSLError)
    assert "TLS handshake with r.example: " in str(failed)
    assert told in str(failed)


@pytest.mark.parametrize("name", ["my_registry", "a" * 64])
def test_no_name_for_tls(name: str) -> None:
    """A name that no certificate can bear fails as TLS does, and http needs no certificate."""
    here = _World({name: [PUBLIC]})
    assert isinstance(_failure_of(here.connect(f"https://{name}/".encode())), SSLError)
    if name == "my_registry":
        here.connect(f"http://{name}/".encode())
        assert here.dialled() == [PUBLIC]


def test_hello() -> None:
    """A server is told which host is meant, and offered HTTP/1.1 over TLS 1.3 or 1.2, nothing else."""
    here = _world(PUBLIC)
    here.connect(b"https://r.example/")
    hello = here.accept().value()
    assert b"\x00\x09r.example" in hello
    assert b"\x00\x2b\x00\x05\x04\x03\x04\x03\x03" in hello
    assert b"\x00\x10\x00\x0b\x00\x09\x08http/1.1" in hello


@pytest.mark.parametrize("scheme", [b"http", b"https"])
def test_read_size(scheme: bytes) -> None:
    """The socket is read in large pieces, below TLS, too."""
    here = _world(PUBLIC)
    here.connect(scheme + b"://r.example/")
    assert here.accept().bufferSize == READ_SIZE


@pytest.mark.parametrize("scheme", [b"http", b"https"])
def test_no_delay(scheme: bytes) -> None:
    """The HTTP client sees that it speaks over TCP, and has requests sent without delay."""
    here = _world(PUBLIC)
    here.agent.request(b"GET", scheme + b"://r.example/")
    here.reactor.advance(0)
    assert not here.accept().delay


def _asked(**choices: Any) -> tuple[_World, _Wire, Deferred[IResponse]]:
    """A request, sent to a peer that has not answered yet."""
    here = _world(PUBLIC)
    response = here.get(**choices)
    return here, here.accept(), response


HEAD = b"HTTP/1.1 200 OK\r\n"


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
    assert _result_of(response).code == 200
    assert not wire.aborted

    here, wire, response = _asked()
    for piece in _pieces(_headers_of(HEADERS_LIMIT + 1), size):
        wire.protocol.dataReceived(piece)
    assert wire.aborted
    here.reactor.advance(0)
    failed = _failure_of(response)
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
    assert isinstance(_failure_of(response).reasons[0].value, HeadersTooLong)


def test_malformed_headers() -> None:
    """Headers that are none fail as such."""
    here, wire, response = _asked()
    wire.protocol.dataReceived(HEAD + b"nonsense\r\n\r\n")
    assert wire.aborted
    here.reactor.advance(0)
    assert isinstance(_failure_of(response).reasons[0].value, ValueError)


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
    assert isinstance(_failure_of(response).reasons[0].value, HeadersTooLong)


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000\r\n\r\n", b"\r\n"])
def test_body_unbounded(framing: bytes) -> None:
    """A body may be of any length, and begin in the same piece as its headers end."""
    _, wire, response = _asked()
    body = b"\x00" * 1_000_000
    wire.protocol.dataReceived(HEAD + framing + body[:500_000])
    reading = content(_result_of(response))
    for piece in _pieces(body[500_000:], 100_000):
        wire.protocol.dataReceived(piece)
    if framing == b"\r\n":
        wire.protocol.connectionLost(Failure(ConnectionAborted()))
    assert _result_of(reading) == body
    assert not wire.aborted


@pytest.mark.parametrize("before", [b"200 OK", b"204 No Content"])
def test_keep_alive_bounded(before: bytes) -> None:
    """Each response on a connection may have headers up to the limit, and none may have more."""
    here, wire, response = _asked()
    for _ in range(3):
        wire.protocol.dataReceived(_headers_of(40_000, b"HTTP/1.1 " + before + b"\r\n"))
        assert _result_of(response).phrase in before
        response = here.get()
    body = b"x" * 200_000
    wire.protocol.dataReceived(_headers_of(40_000, HEAD, b"Content-Length: 200000\r\n\r\n") + body)
    assert _result_of(content(_result_of(response))) == body
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
    reading = content(_result_of(response))
    assert wire.producerState == "producing"
    wire.protocol.dataReceived(b"67890")
    assert _result_of(reading) == b"1234567890"


def test_request_paced() -> None:
    """Who writes a request's body is paced by the socket."""
    upload = _Unending()
    _, wire, _ = _asked(method=b"POST", body=upload)
    assert wire.producer is upload


def test_closing_aborts() -> None:
    """A connection that is not kept is aborted, so that it needs nobody's consent to end."""
    _, wire, response = _asked()
    wire.protocol.dataReceived(HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\n")
    reading = content(_result_of(response))
    wire.protocol.dataReceived(b"OK")
    assert _result_of(reading) == b"OK"
    assert wire.aborted


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
    _result_of(response).deliverBody(_Fickle(leave))
    assert wire.aborted


def test_pool_drops_the_dead() -> None:
    """A pool may drop a connection that its peer closed long ago."""
    here, wire, response = _asked()
    wire.protocol.dataReceived(HEAD + b"Content-Length: 0\r\n\r\n")
    _result_of(response)
    wire.protocol.connectionLost(Failure(ConnectionAborted()))
    here.reactor.advance(here.pool.cachedConnectionTimeout)
    assert not wire.aborted


def test_pool_drops_the_idle() -> None:
    """A connection that was idle for too long is aborted."""
    here, wire, _ = _asked()
    wire.protocol.dataReceived(HEAD + b"Content-Length: 0\r\n\r\n")
    here.reactor.advance(here.pool.cachedConnectionTimeout)
    assert wire.aborted


# Over real sockets.


class _Authority:
    """A certificate authority of its own."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign("authority", self.key, x509.BasicConstraints(ca=True, path_length=None))

    def issue(self, *names: str) -> SSL.Context:
        """What a server needs to be trusted by those names and addresses, or by none."""
        key = ec.generate_private_key(ec.SECP256R1())
        kinds = [x509.IPAddress(ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names]
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        extensions = [x509.SubjectAlternativeName(kinds)] if kinds else []
        context.use_certificate(self._sign("server", key, *extensions))
        context.use_privatekey(key)
        context.set_alpn_select_callback(lambda _, offered: offered[0])
        return context

    def _sign(
        self, subject: str, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder(_name("authority"), _name(subject), key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        now = datetime.now(UTC)
        builder = builder.not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


AUTHORITY = _Authority()


@pytest.fixture
def ca_file(tmp_path: Path) -> str:
    """The authority's certificate, for those who trust it."""
    path = tmp_path / "ca.pem"
    path.write_bytes(AUTHORITY.certificate.public_bytes(serialization.Encoding.PEM))
    return str(path)


class _Server(Protocol):
    """Says what it was given at the first bytes that it receives, and can tell when it was left."""

    said = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    transport: Any

    def __init__(self) -> None:
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(self.said)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class _Endless(_Server):
    """Sends headers for as long as there is somebody."""

    said = b"X: y\r\n" * 1000

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(HEAD)
        self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        self.transport.write(self.said)

    def stopProducing(self) -> None: ...


class _Silent(_Server):
    """Hears, and says nothing."""

    said = b""


class _Vanished(_Server):
    """Answers, and then is deaf to whatever the client says."""

    said = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.pauseProducing()


@implementer(IOpenSSLServerConnectionCreator)
class _Secured:
    """Serves TLS."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        return SSL.Connection(self._context)


class _Listening(Factory):
    """A server on the loopback interface, and the connections that it accepted."""

    noisy = False

    def __init__(self, kind: type[_Server], context: SSL.Context | None = None) -> None:
        self.accepted: list[_Server] = []
        self._kind = kind
        served: Any = self if context is None else TLSMemoryBIOFactory(_Secured(context), False, self)
        self.port = reactor.listenTCP(0, served, interface="127.0.0.1")

    def buildProtocol(self, addr: object) -> _Server:
        self.accepted.append(self._kind())
        return self.accepted[-1]

    def url(self, host: str = "r.example", scheme: str = "https") -> bytes:
        return f"{scheme}://{host}:{self.port.getHost().port}/".encode()

    def clients(self) -> list[Client]:
        """The sockets on this side that are still connected to it."""
        here = self.port.getHost().port
        watched = {*reactor.getReaders(), *reactor.getWriters()}
        return [client for client in watched if isinstance(client, Client) and client.getPeer().port == here]


@pytest_twisted.async_yield_fixture()
async def serve() -> AsyncIterator[Callable[..., _Listening]]:
    """Makes servers that end with the test."""
    listening: list[_Listening] = []

    def start(*choices: Any) -> _Listening:
        listening.append(_Listening(*choices))
        return listening[-1]

    yield start
    for one in listening:
        await one.port.stopListening()
        for server in one.accepted:
            if not server.lost.called:
                server.transport.abortConnection()
            await server.lost


def _real_agent(ca_file: str | None, timeout: float = 5.0) -> Agent:
    names = {name: ["127.0.0.1"] for name in ("r.example", "r.example.", "127.0.0.1")}
    addresses = AllowedAddresses(names)
    endpoints = Endpoints(reactor, _FakeResolver(names), tls_policy(ca_file), addresses, timeout)
    pool = HTTPConnectionPool(reactor, persistent=False)
    agent: Agent = Agent.usingEndpointFactory(reactor, endpoints, pool)
    return agent


async def _soon(condition: Callable[[], bool]) -> bool:
    """Whether something comes about within a second."""
    for _ in range(100):
        if condition():
            return True
        await deferLater(reactor, 0.01)
    return False


@pytest.mark.parametrize("host", ["r.example", "r.example.", "127.0.0.1"])
@pytest_twisted.ensureDeferred
async def test_named(serve: Callable[..., _Listening], ca_file: str, host: str) -> None:
    """A server whose certificate names it is spoken to in HTTP/1.1, and its socket is closed in the end."""
    server = serve(_Server, AUTHORITY.issue("r.example", "127.0.0.1"))
    response = await _real_agent(ca_file).request(b"GET", server.url(host))
    assert server.accepted[0].transport.negotiatedProtocol == b"http/1.1"
    assert await content(response) == b"hello"
    await server.accepted[0].lost
    assert server.clients() == []


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("other.example",), "is for another name"),
        (("127.0.0.1",), "is for another name"),
        ((), "names nobody"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_misnamed(
    serve: Callable[..., _Listening], ca_file: str, names: tuple[str, ...], told: str
) -> None:
    """A trusted certificate for another name, or for none, is refused before anything is asked."""
    server = serve(_Server, AUTHORITY.issue(*names))
    with pytest.raises(SSLError, match=f"TLS handshake with r.example: its certificate {told}"):
        await _real_agent(ca_file).request(b"GET", server.url())
    await server.accepted[0].lost
    assert server.clients() == []


@pytest_twisted.ensureDeferred
async def test_untrusted(serve: Callable[..., _Listening]) -> None:
    """A certificate of an authority that nobody trusts is refused."""
    server = serve(_Server, AUTHORITY.issue("r.example"))
    with pytest.raises(SSLError, match=r"TLS handshake with r.example: certificate verify failed"):
        await _real_agent(None).request(b"GET", server.url())
    assert await _soon(lambda: server.clients() == [])


@pytest_twisted.ensureDeferred
async def test_system_trusted(
    serve: Callable[..., _Listening], ca_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom the system trusts is trusted, with a CA file as without."""
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)
    server = serve(_Server, AUTHORITY.issue("r.example"))
    other = tmp_path / "other.pem"
    other.write_bytes(_Authority().certificate.public_bytes(serialization.Encoding.PEM))
    for chosen in (None, str(other)):
        response = await _real_agent(chosen).request(b"GET", server.url())
        assert await content(response) == b"hello"


def test_no_ca_file(tmp_path: Path) -> None:
    """A CA file that is missing or holds no certificate is an error at once."""
    with pytest.raises(OSError, match="missing"):
        tls_policy(str(tmp_path / "missing.pem"))
    (tmp_path / "empty.pem").touch()
    with pytest.raises(ValueError, match="PEM"):
        tls_policy(str(tmp_path / "empty.pem"))


@pytest_twisted.ensureDeferred
async def test_endless_headers(serve: Callable[..., _Listening], ca_file: str) -> None:
    """A server whose headers never end is left."""
    server = serve(_Endless, AUTHORITY.issue("r.example"))
    with pytest.raises(ResponseFailed) as failed:
        await _real_agent(ca_file).request(b"GET", server.url())
    assert isinstance(failed.value.reasons[0].value, HeadersTooLong)
    await server.accepted[0].lost
    assert server.clients() == []


@pytest_twisted.ensureDeferred
async def test_silent_server(serve: Callable[..., _Listening], ca_file: str) -> None:
    """A server that accepts and never begins with TLS is left."""
    server = serve(_Silent)
    with pytest.raises(ConnectTimedOut, match=r"the TLS handshake with r.example took more than 0.2 s"):
        await _real_agent(ca_file, timeout=0.2).request(b"GET", server.url())
    await server.accepted[0].lost
    assert server.clients() == []


@pytest_twisted.ensureDeferred
async def test_vanished_server(serve: Callable[..., _Listening], ca_file: str) -> None:
    """A server that hears nothing any more keeps no socket open on this side."""
    server = serve(_Vanished, AUTHORITY.issue("r.example"))
    response = await _real_agent(ca_file).request(b"GET", server.url())
    assert await content(response) == b"hello"
    assert await _soon(lambda: server.clients() == [])


@pytest_twisted.ensureDeferred
async def test_threaded_resolver(serve: Callable[..., _Listening]) -> None:
    """The system's resolver knows literal addresses, and that some names have none."""
    server = serve(_Server)
    resolver = threaded_resolver(reactor, 1)
    endpoints = Endpoints(reactor, resolver, tls_policy(), AllowedAddresses(["127.0.0.1"]))
    agent = Agent.usingEndpointFactory(reactor, endpoints)
    response = await agent.request(b"GET", server.url("127.0.0.1", "http"))
    assert await content(response) == b"hello"
    with pytest.raises(AddressRefused, match=r"127.1 resolves to 127.0.0.1, which is loopback"):
        await agent.request(b"GET", server.url("127.1", "http"))
    for url in (b"http://nowhere.invalid/", b"http://a..example/"):
        with pytest.raises(DNSLookupError):
            await agent.request(b"GET", url)


def test_resolver_threads() -> None:
    """The resolver's threads begin and end with the reactor."""
    memory = MemoryReactorClock()
    verifyObject(IHostnameResolver, threaded_resolver(memory))
    [(start, _, _)] = memory.whenRunningHooks
    [(stop, _, _)] = memory.triggers["during"]["shutdown"]
    start()
    stop()
