"""Connections that a proxy makes."""

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

from . import http_proxy, socks
from .bounded_endpoint import handshake_error, with_timeout
from .checked_endpoint import AddressRefused
from .proxy import Proxy, ProxyError, authority

ANSWER_LIMIT = 64 * 1024


@implementer(IStreamClientEndpoint)
@frozen
class TunnelEndpoint:
    """A connection to a host over an endpoint that leads to a proxy.

    Fails with ``ProxyError``; with ``TimeoutError`` where the proxy is too slow.

    :ivar timeout: seconds for the proxy to connect, once it is connected to.
    """

    endpoint: IStreamClientEndpoint
    proxy: Proxy
    host: str
    port: int
    timeout: float
    clock: IReactorTime

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See ``IStreamClientEndpoint``."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        try:
            connected = await self.endpoint.connect(_Tunnelling(factory, self))
        except ConnectTimedOut:
            raise
        except (ConnectError, DNSLookupError, AddressRefused) as error:
            raise ProxyError(self.proxy, f"cannot be connected to: {error}") from error
        tunnelled = cast(_Tunnelled, connected)
        what = f"the proxy {self.proxy} connecting to {authority(self.host, self.port)}"
        await with_timeout(tunnelled.opened, self.timeout, self.clock, what)
        return tunnelled.wrappedProtocol


class _Tunnelled(ProtocolWrapper):
    """Between a proxy and a protocol, which learns of its connection when the proxy has made it.

    :ivar opened: fires when the proxy has connected; fails with ``ProxyError``.
    """

    factory: _Tunnelling
    transport: Any

    def __init__(self, factory: _Tunnelling, wrappedProtocol: IProtocol) -> None:
        super().__init__(factory, wrappedProtocol)
        self.opened: Deferred[None] = Deferred(lambda _: self.transport.abortConnection())
        to = factory.to
        speaks = http_proxy if to.proxy.scheme in ("http", "https") else socks
        self._opening = speaks.handshake(to.proxy, to.host, to.port)
        self._open = False
        self._room = ANSWER_LIMIT

    def makeConnection(self, transport: Any) -> None:
        """Not as a wrapper does: the wrapped protocol is told later."""
        Protocol.makeConnection(self, transport)
        self._say(None)

    def dataReceived(self, data: bytes) -> None:
        if self._open:
            self.wrappedProtocol.dataReceived(data)
        elif not self.opened.called:
            self._say(data)

    def _say(self, heard: bytes | None) -> None:
        self._room -= len(heard or b"")
        try:
            said = self._opening.send(cast(bytes, heard))
            if self._room < 0:
                raise ProxyError(self.factory.to.proxy, f"answered with more than {ANSWER_LIMIT} bytes")
        except StopIteration as end:
            self._hand_over(end.value)
        except ProxyError as error:
            self.opened.errback(error)
            self.transport.abortConnection()
        else:
            self.transport.write(said)

    def _hand_over(self, data: bytes) -> None:
        self._open = True
        directlyProvides(self, ITCPTransport)  # and no TLS, which were the proxy's own
        self.wrappedProtocol.makeConnection(cast(ITransport, self))
        self.opened.callback(None)
        if data:
            self.wrappedProtocol.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._open:
            self.wrappedProtocol.connectionLost(reason)
        elif not self.opened.called:
            self.opened.errback(_lost(self.factory.to.proxy, reason.value))


class _Tunnelling(WrappingFactory[_Tunnelled]):
    """Makes connections through one tunnel."""

    protocol = _Tunnelled
    noisy = False

    def __init__(self, wrappedFactory: IProtocolFactory, to: TunnelEndpoint) -> None:
        super().__init__(wrappedFactory)
        self.to = to


def _lost(proxy: Proxy, cause: BaseException | None) -> ProxyError:
    why = "closed the connection before it had answered"
    if not isinstance(cause, ConnectionClosed):  # but failed to speak TLS
        why = f"cannot be spoken to: {handshake_error(proxy.host, cause)}"
    error = ProxyError(proxy, why)
    error.__cause__ = cause
    return error
