"""Connections with limits: on the time of the TLS handshake, and on the size of response headers."""

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
    """A response's headers, including those of preceding 1xx responses, exceed ``HEADERS_LIMIT`` bytes.

    Or one of their lines exceeds 16 KiB, which is the limit of Twisted's client.
    """


class HandshakeTimedOut(ConnectTimedOut):
    """A TLS handshake took too long."""


def with_timeout(
    deferred: Deferred[_Result],
    timeout: float,
    clock: IReactorTime,
    activity: str,
    error_class: type[ConnectTimedOut] = ConnectTimedOut,
) -> Deferred[_Result]:
    """Fail with an error that names the activity, unless the result is there in time."""

    def time_out(_: object, seconds: float) -> NoReturn:
        raise error_class(string=f"{activity} took more than {seconds:g} s")

    return deferred.addTimeout(timeout, clock, time_out)


@implementer(IStreamClientEndpoint)
@frozen
class BoundedEndpoint:
    """Applies the limits to the connections of another endpoint, and waits until they can exchange bytes."""

    endpoint: IStreamClientEndpoint
    host: str
    timeout: float
    clock: IReactorTime

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        bounded = _BoundedFactory(factory, self.host, self.clock)
        connection = cast(_BoundedConnection, await self.endpoint.connect(bounded))
        activity = f"the TLS handshake with {self.host}"
        await with_timeout(connection.ready, self.timeout, self.clock, activity, HandshakeTimedOut)
        return connection.wrappedProtocol


@implementer(IHandshakeListener)
class _BoundedConnection(ProtocolWrapper):
    """A protocol between Twisted's HTTP client, whose transport it is, and TCP or TLS.

    Only the client knows the position within a response, and its flow control reveals it: it pauses its
    transport when headers have ended and a body begins, and resumes it, being quiescent, when the response
    has ended.

    TLS delivers records of 16 KiB; those of a body that arrive in one read are passed on as one piece.

    :ivar ready: fires when bytes can be exchanged; fails with ``SSLError``.
    """

    factory: _BoundedFactory
    transport: Any

    def __init__(self, factory: _BoundedFactory, wrappedProtocol: IProtocol) -> None:
        super().__init__(factory, wrappedProtocol)
        self.ready: Deferred[None] = Deferred(lambda _: self.abortConnection())
        self._in_body = False
        self._headers_left = HEADERS_LIMIT
        self._too_long: Failure | None = None
        self._records: list[bytes] | None = None

    def makeConnection(self, transport: Any) -> None:
        _find_network_transport(transport).bufferSize = READ_SIZE
        super().makeConnection(transport)
        if ISSLTransport.providedBy(transport):
            self._records = []
        else:
            self.ready.callback(None)

    def handshakeCompleted(self) -> None:
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
                self.factory.clock.callLater(0, self._flush_records)

    def _flush_records(self) -> None:
        """Pass on the collected records, unless the client has dropped the connection."""
        if self._records and not self.disconnecting:
            body = b"".join(self._records)
            self._records.clear()
            self.wrappedProtocol.dataReceived(body)

    def _receive_headers(self, data: bytes) -> None:
        headers, rest = data[: self._headers_left], data[self._headers_left :]
        self._headers_left -= len(headers)
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
            self._headers_left = HEADERS_LIMIT
        self.transport.resumeProducing()

    def abortConnection(self) -> None:
        """Abort, also in place of an orderly close: a TLS peer that has vanished would never confirm one."""
        if self.connected and not self.disconnecting:  # pools also drop connections that were lost before
            self.disconnecting = 1
            self.transport.abortConnection()

    loseConnection = abortConnection
    stopProducing = abortConnection

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.connected = 0
        self._flush_records()
        if not self.ready.called:
            self.ready.errback(make_handshake_error(self.factory.host, reason.value))
        super().connectionLost(self._too_long or reason)


class _BoundedFactory(WrappingFactory[_BoundedConnection]):
    protocol = _BoundedConnection
    noisy = False

    def __init__(self, wrappedFactory: IProtocolFactory, host: str, clock: IReactorTime) -> None:
        super().__init__(wrappedFactory)
        wrappedFactory.noisy = False  # type: ignore[attr-defined]  # it would log each connection with its details
        self.host = host
        self.clock = clock


def _find_network_transport(transport: Any) -> Any:
    """Return the transport that reads from the network, below all layers of TLS."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport


def make_handshake_error(host: str, cause: BaseException | None) -> SSLError:
    """Return an error that says why the TLS handshake with a host failed."""
    if isinstance(cause, VerificationError):
        reason = "its certificate is for another name"
    elif isinstance(cause, CertificateError):
        reason = "its certificate names no host"
    elif isinstance(cause, OpenSSLError) and cause.args and isinstance(cause.args[0], list):
        reason = "; ".join(reason for *_, reason in cause.args[0])
    else:
        reason = str(cause).rstrip(".")
    error = SSLError(string=f"TLS handshake with {host}: {reason}")
    error.__cause__ = cause
    return error
