"""Connections to an upstream: to checked addresses, verified, bounded, and none that waits for ever."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from attrs import frozen
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL.crypto import X509, X509Store
from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, Connection
from OpenSSL.SSL import Error as OpenSSLError
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, ServiceID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet._resolver import GAIResolver
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, FailureGroup, fail, race
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import DNSLookupError, SSLError
from twisted.internet.error import TimeoutError as ConnectTimedOut
from twisted.internet.interfaces import (
    IHandshakeListener,
    IHostnameResolver,
    IHostResolution,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IResolutionReceiver,
    ISSLTransport,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import TLSVersion, optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.web.client import URI, HostnameCachingHTTPSPolicy
from twisted.web.error import SchemeNotSupported
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from .addresses import AllowedAddresses

HEADERS_LIMIT = 64 * 1024
READ_SIZE = 256 * 1024
_ATTEMPT_DELAY = 0.3

_Address = IPv4Address | IPv6Address
_Result = TypeVar("_Result")


class AddressRefused(Exception):
    """None of the addresses of a host may be connected to; the message says why."""


class HeadersTooLong(Exception):
    """A response's headers, those of 1xx ones before it counted, have more than ``HEADERS_LIMIT`` bytes.

    Or one of their lines has more than 16 KiB, which is the limit of Twisted's client.
    """


@implementer(IAgentEndpointFactory)
@frozen
class Endpoints:
    """Where the ``Agent`` of one upstream connects to.

    Connecting fails with ``AddressRefused``, or as Twisted's own endpoints do: with ``DNSLookupError`` or a
    ``ConnectError``, of which ``SSLError`` and ``TimeoutError`` tell of the TLS handshake as well.  Headers
    that are too long fail the request with ``HeadersTooLong`` among its reasons.

    A pool knows its connections by scheme, host and port only: shared by two upstreams, it would lend to one
    what only the other may connect to.  Each ``Endpoints`` therefore needs a pool of its own.

    :ivar reactor: provides ``IReactorTCP`` and ``IReactorTime``.
    :ivar connect_timeout: seconds to resolve a name and to connect, and as many again for TLS.
    """

    reactor: Any
    resolver: IHostnameResolver
    tls: IPolicyForHTTPS
    addresses: AllowedAddresses
    connect_timeout: float = 10.0

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See ``IAgentEndpointFactory``."""
        host = uri.host.decode("ascii")
        endpoint: IStreamClientEndpoint = _Checked(self, host, uri.port)
        if uri.scheme == b"https":
            endpoint = _Secured(self, host, uri.port, endpoint)
        elif uri.scheme != b"http":
            raise SchemeNotSupported(f"Unsupported scheme: {uri.scheme!r}")
        return _Bounded(self, host, endpoint)


def _in_time(to: Endpoints, waiting: Deferred[_Result], what: str) -> Deferred[_Result]:
    """Gives up after the connect timeout, and says on what."""

    def late(_: object, seconds: float) -> NoReturn:
        raise ConnectTimedOut(string=f"{what} took more than {seconds:g} s")

    return waiting.addTimeout(to.connect_timeout, to.reactor, late)


@implementer(IStreamClientEndpoint)
@frozen
class _Checked:
    """TCP to whichever allowed address of a host answers first (RFC 8305).

    An address is judged after resolution and connected to as it was judged: there is no second resolution.
    """

    to: Endpoints
    host: str
    port: int

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See ``IStreamClientEndpoint``."""
        connecting = Deferred.fromCoroutine(self._connect(protocolFactory))
        return _in_time(self.to, connecting, f"connecting to {self.host}")

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        addresses = _alternating(self._allowed(await self._resolve()))
        attempts = [self._attempt(address, n, factory) for n, address in enumerate(addresses)]
        try:
            _, protocol = await race(attempts)
        except FailureGroup as group:
            group.failures[-1].raiseException()
        return protocol

    async def _resolve(self) -> Sequence[_Address]:
        try:
            self.host.encode("idna")
        except UnicodeError as error:  # on which GAIResolver would never answer
            raise DNSLookupError(f"{self.host} is no host's name") from error
        answers = _Answers()
        self.to.resolver.resolveHostName(answers, self.host, self.port)
        return await answers.complete

    def _allowed(self, addresses: Sequence[_Address]) -> Sequence[_Address]:
        refusals = [self.to.addresses.refusal(self.host, address.host) for address in addresses]
        allowed = [address for address, refusal in zip(addresses, refusals, strict=True) if refusal is None]
        if not refusals:
            raise DNSLookupError(f"{self.host} has no address")
        if not allowed:
            raise AddressRefused(refusals[0])
        return allowed

    def _attempt(self, address: _Address, n: int, factory: IProtocolFactory) -> Deferred[IProtocol]:
        family = TCP6ClientEndpoint if isinstance(address, IPv6Address) else TCP4ClientEndpoint
        tcp = family(self.to.reactor, address.host, self.port, self.to.connect_timeout)
        return deferLater(self.to.reactor, n * _ATTEMPT_DELAY).addCallback(lambda _: tcp.connect(factory))


@implementer(IResolutionReceiver)
class _Answers:
    """Collects what a name resolves to."""

    def __init__(self) -> None:
        self._addresses: list[_Address] = []
        self.complete: Deferred[Sequence[_Address]] = Deferred()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing to do: Twisted's resolutions cannot be cancelled."""

    def addressResolved(self, address: Any) -> None:
        self._addresses.append(address)

    def resolutionComplete(self) -> None:
        self.complete.callback(self._addresses)


def _alternating(addresses: Sequence[_Address]) -> Sequence[_Address]:
    """Both families in turn, so that a broken one costs one delay and not one for each of its addresses."""
    preferred = [address for address in addresses if type(address) is type(addresses[0])]
    others = [address for address in addresses if type(address) is not type(addresses[0])]
    return [address for pair in zip_longest(preferred, others) for address in pair if address is not None]


@implementer(IStreamClientEndpoint)
@frozen
class _Secured:
    """TLS over another endpoint; its policy is asked only when there is really something to connect."""

    to: Endpoints
    host: str
    port: int
    endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See ``IStreamClientEndpoint``."""
        try:
            creator = self.to.tls.creatorForNetloc(self.host.encode("ascii"), self.port)
        except ValueError as error:
            return fail(SSLError(string=f"no certificate can name {self.host}: {error}"))
        return wrapClientTLS(creator, self.endpoint, self.to.reactor).connect(protocolFactory)


@implementer(IStreamClientEndpoint)
@frozen
class _Bounded:
    """Bounds the connections of another endpoint, and gives them out when bytes can be exchanged."""

    to: Endpoints
    host: str
    endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See ``IStreamClientEndpoint``."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        connection = cast(_BoundedConnection, await self.endpoint.connect(_Bounding(factory, self.host)))
        await _in_time(self.to, connection.ready, f"the TLS handshake with {self.host}")
        return connection.wrappedProtocol


@implementer(IHandshakeListener)
class _BoundedConnection(ProtocolWrapper):
    """Between Twisted's HTTP client, whose transport it is, and TCP or TLS.

    Where in a response it is only the client knows, and its flow control tells: it pauses its transport when
    headers have ended and a body begins, and resumes it, being quiescent, when the response has ended.

    :ivar ready: fires when bytes can be exchanged; fails with ``SSLError``.
    """

    factory: _Bounding
    transport: Any

    def __init__(self, factory: _Bounding, wrappedProtocol: IProtocol) -> None:
        super().__init__(factory, wrappedProtocol)
        self.ready: Deferred[None] = Deferred(lambda _: self.abortConnection())
        self._in_body = False
        self._room = HEADERS_LIMIT
        self._too_long: Failure | None = None

    def makeConnection(self, transport: Any) -> None:
        _lowest(transport).bufferSize = READ_SIZE
        super().makeConnection(transport)
        if not ISSLTransport.providedBy(transport):
            self.ready.callback(None)

    def handshakeCompleted(self) -> None:
        """See ``IHandshakeListener``."""
        if not self.ready.called:
            self.ready.callback(None)

    def dataReceived(self, data: bytes) -> None:
        if self._in_body:
            self.wrappedProtocol.dataReceived(data)
        else:
            self._receive_headers(data)

    def _receive_headers(self, data: bytes) -> None:
        headers, rest = data[: self._room], data[self._room :]
        self._room -= len(headers)
        self.wrappedProtocol.dataReceived(headers)
        if self._in_body:
            if rest:
                self.wrappedProtocol.dataReceived(rest)
        elif rest or self.disconnecting:
            self._too_long = Failure(
                HeadersTooLong(f"the response headers of {self.factory.host} are too long")
            )
            self.abortConnection()

    def pauseProducing(self) -> None:
        self._in_body = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        if getattr(self.wrappedProtocol, "state", None) == "QUIESCENT":
            self._in_body = False
            self._room = HEADERS_LIMIT
        self.transport.resumeProducing()

    def abortConnection(self) -> None:
        """Instead of losing the connection, too: a TLS peer that has vanished would never say goodbye."""
        if self.connected and not self.disconnecting:  # pools drop connections that are lost long since
            self.disconnecting = 1
            self.transport.abortConnection()

    loseConnection = abortConnection
    stopProducing = abortConnection

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.connected = 0
        if not self.ready.called:
            self.ready.errback(_handshake_error(self.factory.host, reason.value))
        super().connectionLost(self._too_long or reason)


class _Bounding(WrappingFactory[_BoundedConnection]):
    """Makes bounded connections to one host."""

    protocol = _BoundedConnection
    noisy = False

    def __init__(self, wrappedFactory: IProtocolFactory, host: str) -> None:
        super().__init__(wrappedFactory)
        self.host = host


def _lowest(transport: Any) -> Any:
    """The transport that reads from the network, below all layers of TLS."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport


def _handshake_error(host: str, cause: BaseException | None) -> SSLError:
    if isinstance(cause, VerificationError):
        why = "its certificate is for another name"
    elif isinstance(cause, CertificateError):
        why = "its certificate names nobody"
    elif isinstance(cause, OpenSSLError) and cause.args and isinstance(cause.args[0], list):
        why = "; ".join(reason for *_, reason in cause.args[0])
    else:
        why = str(cause).rstrip(".")
    error = SSLError(string=f"TLS handshake with {host}: {why}")
    error.__cause__ = cause
    return error


def tls_policy(ca_file: str | None = None) -> IPolicyForHTTPS:
    """HTTP/1.1 over TLS 1.2 or later, with peers whose certificate the system trusts and which it names.

    :param ca_file: PEM certificates to be trusted besides.
    :raises OSError: when it cannot be read.
    :raises ValueError: when there is no certificate in it.
    """
    authorities = load_pem_x509_certificates(Path(ca_file).read_bytes()) if ca_file is not None else []
    return HostnameCachingHTTPSPolicy(_Policy([X509.from_cryptography(ca) for ca in authorities]))


@implementer(IPolicyForHTTPS)
@frozen
class _Policy:
    authorities: Iterable[X509]

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        host = hostname.decode("ascii").removesuffix(".")
        literal = isIPAddress(host) or isIPv6Address(host)
        options = optionsForClientTLS(
            host,
            acceptableProtocols=[b"http/1.1"],
            extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_2},
        )
        return _Verified(options, self.authorities, IPAddress_ID(host) if literal else DNS_ID(host))


@implementer(IOpenSSLClientConnectionCreator)
@frozen
class _Verified:
    """Verifies in Twisted's stead: Twisted 26.10 takes a trusted certificate without names for anybody's."""

    options: IOpenSSLClientConnectionCreator
    authorities: Iterable[X509]
    identity: ServiceID

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> Connection:
        connection = self.options.clientConnectionForTLS(tlsProtocol)
        store = cast(X509Store, connection.get_context().get_cert_store())
        for authority in self.authorities:
            store.add_cert(authority)
        connection.set_verify(VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT, self._verify)
        return connection

    def _verify(self, connection: Connection, certificate: X509, _: int, depth: int, trusted: int) -> bool:
        if depth == 0 and trusted:
            try:
                verify_service_identity(extract_patterns(certificate), [self.identity], [])
            except (VerificationError, CertificateError, ValueError):
                connection.get_app_data().failVerification(Failure())
                return False
        return bool(trusted)


def threaded_resolver(reactor: Any, threads: int = 10) -> IHostnameResolver:
    """The system's resolver in threads of its own, which nothing else can keep busy.  It caches nothing.

    :param reactor: provides ``IReactorCore`` and ``IReactorThreads``; the threads live while it runs.
    """
    pool = ThreadPool(0, threads, "names")
    reactor.callWhenRunning(pool.start)
    reactor.addSystemEventTrigger("during", "shutdown", pool.stop)
    return GAIResolver(reactor, lambda: pool)
