"""Connections of which none waits for ever and none takes in headers without end."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar, cast

from attrs import frozen
from OpenSSL.SSL import Error as OpenSSLError
from service_identity import CertificateError, VerificationError
from twisted.internet.defer import Deferred
from twisted.internet.error import SSLError
from twisted.internet.error import TimeoutError as ConnectTimedOut
from twisted.internet.interfaces import (
    IHandshakeListener,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    ISSLTransport,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

HEADERS_LIMIT = 64 * 1024
READ_SIZE = 256 * 1024
_Result = TypeVar("_Result")


class HeadersTooLong(Exception):
    """A response's headers, those of 1xx ones before it counted, have more than ``HEADERS_LIMIT`` bytes.

    Or one of their lines has more than 16 KiB, which is the limit of Twisted's client.
    """


class HandshakeTimedOut(ConnectTimedOut):
    """TLS did not come about in time."""


def with_timeout(
    waiting: Deferred[_Result],
    timeout: float,
    clock: IReactorTime,
    what: str,
    late_as: type[ConnectTimedOut] = ConnectTimedOut,
) -> Deferred[_Result]:
    """Gives up after so many seconds, and says on what."""

    def late(_: object, seconds: float) -> NoReturn:
        raise late_as(string=f"{what} took more than {seconds:g} s")

    return waiting.addTimeout(timeout, clock, late)


@implementer(IStreamClientEndpoint)
@frozen
class BoundedEndpoint:
    """Bounds the connections of another endpoint, and gives them out when bytes can be exchanged."""

    endpoint: IStreamClientEndpoint
    host: str
    timeout: float
    clock: IReactorTime

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See ``IStreamClientEndpoint``."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        bounding = _Bounding(factory, self.host, self.clock)
        connection = cast(_BoundedConnection, await self.endpoint.connect(bounding))
        what = f"the TLS handshake with {self.host}"
        await with_timeout(connection.ready, self.timeout, self.clock, what, HandshakeTimedOut)
        return connection.wrappedProtocol


@implementer(IHandshakeListener)
class _BoundedConnection(ProtocolWrapper):
    """Between Twisted's HTTP client, whose transport it is, and TCP or TLS.

    Where in a response it is only the client knows, and its flow control tells: it pauses its transport when
    headers have ended and a body begins, and resumes it, being quiescent, when the response has ended.

    TLS gives a record of 16 KiB at a time; those of a body that were read at once are passed on as one piece.

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
        self._records: list[bytes] | None = None

    def makeConnection(self, transport: Any) -> None:
        _lowest(transport).bufferSize = READ_SIZE
        super().makeConnection(transport)
        if ISSLTransport.providedBy(transport):
            self._records = []
        else:
            self.ready.callback(None)

    def handshakeCompleted(self) -> None:
        """See ``IHandshakeListener``."""
        if not self.ready.called:
            self.ready.callback(None)

    def dataReceived(self, data: bytes) -> None:
        if not self._in_body:
            self._receive_headers(data)
        elif self._records is None:
            self.wrappedProtocol.dataReceived(data)
        else:
            self._records.append(data)
            if len(self._records) == 1:
                self.factory.clock.callLater(0, self._pass_on)

    def _pass_on(self) -> None:
        """Nothing more goes to a client that has dropped the connection."""
        if self._records and not self.disconnecting:
            body = b"".join(self._records)
            self._records.clear()
            self.wrappedProtocol.dataReceived(body)

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
        self._pass_on()
        if not self.ready.called:
            self.ready.errback(handshake_error(self.factory.host, reason.value))
        super().connectionLost(self._too_long or reason)


class _Bounding(WrappingFactory[_BoundedConnection]):
    """Makes bounded connections to one host."""

    protocol = _BoundedConnection
    noisy = False

    def __init__(self, wrappedFactory: IProtocolFactory, host: str, clock: IReactorTime) -> None:
        super().__init__(wrappedFactory)
        wrappedFactory.noisy = False  # type: ignore[attr-defined]  # it would tell of each connection, with all that belongs to it
        self.host = host
        self.clock = clock


def _lowest(transport: Any) -> Any:
    """The transport that reads from the network, below all layers of TLS."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport


def handshake_error(host: str, cause: BaseException | None) -> SSLError:
    """Why TLS with a host did not come about, in words."""
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
