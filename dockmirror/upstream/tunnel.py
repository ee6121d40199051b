"""Connections through a proxy."""

from __future__ import annotations

from typing import Any, cast

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimedOut
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from .bounded_endpoint import make_handshake_error, with_timeout
from .checked_endpoint import AddressRefused
from .proxy import Proxy, ProxyError, format_authority
from .proxy_handshakes import connect_handshake, socks5_handshake

ANSWER_LIMIT = 64 * 1024


@implementer(IStreamClientEndpoint)
@frozen
class TunnelEndpoint:
    """Connects to a host over an endpoint that leads to a proxy.

    Fails with ``ProxyError``; with ``TimeoutError`` if the proxy is too slow.

    :ivar timeout: seconds for the proxy to connect, once the mirror is connected to the proxy.
    """

    endpoint: IStreamClientEndpoint
    proxy: Proxy
    host: str
    port: int
    timeout: float
    clock: IReactorTime

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        try:
            connected = await self.endpoint.connect(_TunnelFactory(factory, self))
        except ConnectTimedOut:
            raise
        except (ConnectError, DNSLookupError, AddressRefused) as error:
            raise ProxyError(self.proxy, f"cannot be connected to: {error}") from error
        tunnelled = cast(_TunnelProtocol, connected)
        activity = f"the proxy {self.proxy} connecting to {format_authority(self.host, self.port)}"
        await with_timeout(tunnelled.opened, self.timeout, self.clock, activity)
        return tunnelled.wrappedProtocol


class _TunnelProtocol(ProtocolWrapper):
    """A protocol that does the proxy's handshake, and then connects the protocol that it wraps.

    :ivar opened: fires when the proxy has connected; fails with ``ProxyError``.
    """

    factory: _TunnelFactory
    transport: Any

    def __init__(self, factory: _TunnelFactory, wrappedProtocol: IProtocol) -> None:
        super().__init__(factory, wrappedProtocol)
        self.opened: Deferred[None] = Deferred(lambda _: self.transport.abortConnection())
        tunnel = factory.tunnel
        handshake = connect_handshake if tunnel.proxy.scheme in ("http", "https") else socks5_handshake
        self._handshake = handshake(tunnel.proxy, tunnel.host, tunnel.port)
        self._is_open = False
        self._answer_left = ANSWER_LIMIT

    def makeConnection(self, transport: Any) -> None:
        """Start the handshake; unlike other wrappers, connect the wrapped protocol later."""
        Protocol.makeConnection(self, transport)
        self._advance(None)

    def dataReceived(self, data: bytes) -> None:
        if self._is_open:
            self.wrappedProtocol.dataReceived(data)
        elif not self.opened.called:
            self._advance(data)

    def _advance(self, received: bytes | None) -> None:
        self._answer_left -= len(received or b"")
        try:
            to_send = self._handshake.send(cast(bytes, received))
            if self._answer_left < 0:
                raise ProxyError(self.factory.tunnel.proxy, f"answered with more than {ANSWER_LIMIT} bytes")
        except StopIteration as end:
            self._start_protocol(end.value)
        except ProxyError as error:
            self.opened.errback(error)
            self.transport.abortConnection()
        else:
            self.transport.write(to_send)

    def _start_protocol(self, data: bytes) -> None:
        self._is_open = True
        directlyProvides(self, ITCPTransport)  # without TLS, which would be the proxy's own
        self.wrappedProtocol.makeConnection(cast(ITransport, self))
        self.opened.callback(None)
        if data:
            self.wrappedProtocol.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._is_open:
            self.wrappedProtocol.connectionLost(reason)
        elif not self.opened.called:
            self.opened.errback(_explain_loss(self.factory.tunnel.proxy, reason.value))


class _TunnelFactory(WrappingFactory[_TunnelProtocol]):
    protocol = _TunnelProtocol
    noisy = False

    def __init__(self, wrappedFactory: IProtocolFactory, tunnel: TunnelEndpoint) -> None:
        super().__init__(wrappedFactory)
        self.tunnel = tunnel


def _explain_loss(proxy: Proxy, cause: BaseException | None) -> ProxyError:
    reason = "closed the connection without answering"
    if not isinstance(cause, ConnectionClosed):  # but a failure of TLS
        reason = f"cannot be used: {make_handshake_error(proxy.host, cause)}"
    error = ProxyError(proxy, reason)
    error.__cause__ = cause
    return error
