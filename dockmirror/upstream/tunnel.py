"""Connections through a proxy: the handshakes of HTTP CONNECT and SOCKS5, and their endpoint.

HTTP proxies also forward requests to ``http`` URLs in absolute form (RFC 9112, 3.2.2).  The mirror uses
CONNECT (RFC 9110, 9.3.6) for these, too: the proxy's credentials would have to stand in every request, and a
proxy that does not ask for them may pass them on to the upstream (RFC 9110, 11.7.2); and no proxy in between
can cache or rewrite the content of a tunnel.  The price: many proxies allow CONNECT to port 443 only, until
their operator allows another one.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from http import HTTPStatus
from ipaddress import ip_address
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

from ..oci.token import Credentials
from .bounded_endpoint import make_handshake_error, with_timeout
from .checked_endpoint import AddressRefused
from .proxy import Proxy, ProxyError, ProxyHandshake, format_authority

_HTTP_VERSION = b"HTTP/1."
_STATUS = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})(?:[ \r\n]|$)")
_LOGIN_STATUSES = {HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, HTTPStatus.UNAUTHORIZED}  # tinyproxy says 401
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_VERSION, _LOGIN_VERSION, _CONNECT = 5, 1, 1
_NO_LOGIN, _LOGIN = 0, 2
_IPV4, _NAME, _IPV6 = 1, 3, 4
_SIZES = {_IPV4: 4, _IPV6: 16}
_NAME_LIMIT = 255
_REPLIES = {
    1: "general SOCKS server failure",
    2: "connection not allowed by ruleset",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "command not supported",
    8: "address type not supported",
}


def connect_handshake(proxy: Proxy, host: str, port: int) -> ProxyHandshake:
    """Request a connection to a host from an HTTP proxy, with its credentials if any (Basic, RFC 7617).

    A body announced by a 2xx response is ignored: the bytes behind its headers belong to the connection.
    """
    received = bytearray()
    received += yield _connect_request(proxy, host, port)
    while True:
        end = _HEAD_END.search(received)
        if end is None:
            if not received.startswith(_HTTP_VERSION[: len(received)]):
                raise ProxyError(proxy, "does not speak HTTP/1.1")
            received += yield b""
            continue
        status = _parse_status(proxy, bytes(received[: end.start()]))
        del received[: end.end()]
        if status // 100 == 2:
            return bytes(received)
        if status // 100 != 1 or status == HTTPStatus.SWITCHING_PROTOCOLS:
            raise ProxyError(proxy, _describe_refusal(proxy, status, format_authority(host, port)), status)


def _connect_request(proxy: Proxy, host: str, port: int) -> bytes:
    target = format_authority(host, port)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.username is not None:
        lines.append(f"Proxy-Authorization: {Credentials.basic(proxy.username, proxy.password).header}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _parse_status(proxy: Proxy, head: bytes) -> int:
    match = _STATUS.match(head)
    if match is None:
        raise ProxyError(proxy, "does not speak HTTP/1.1")
    return int(match[1])


def _describe_refusal(proxy: Proxy, status: int, target: str) -> str:
    """Describe the status in the specification's words; in its own the proxy could repeat the credentials."""
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    more = ""
    if status in _LOGIN_STATUSES:
        wants = (
            "requires a user name and password"
            if proxy.username is None
            else "rejects the user name or password"
        )
        more = f": it {wants}"
    return f"answered {status}{phrase} to CONNECT {target}{more}"


def socks5_handshake(proxy: Proxy, host: str, port: int) -> ProxyHandshake:
    """Request a connection to a host from a SOCKS5 proxy (RFC 1928), with a login if it asks (RFC 1929).

    The host is sent as an address if it is one, and else as a name.
    """
    target = _encode_address(proxy, host) + port.to_bytes(2, "big")
    methods = bytes([_NO_LOGIN] if proxy.username is None else [_NO_LOGIN, _LOGIN])
    received = bytearray()
    received += yield bytes([_VERSION, len(methods)]) + methods
    version, method = yield from _receive(received, 2)
    if version != _VERSION:
        raise ProxyError(proxy, "does not speak SOCKS5")
    if method not in methods:
        wants = (
            "requires a user name and password"
            if proxy.username is None
            else "requires an unsupported login method"
        )
        raise ProxyError(proxy, wants)
    if method == _LOGIN:
        received += yield _login_request(proxy)
        _, refused = yield from _receive(received, 2)
        if refused:
            raise ProxyError(proxy, "rejects the user name or password")
    received += yield bytes([_VERSION, _CONNECT, 0]) + target
    yield from _receive_reply(proxy, format_authority(host, port), received)
    return bytes(received)


def _encode_address(proxy: Proxy, host: str) -> bytes:
    try:
        address = ip_address(host)
    except ValueError:
        name = host.encode("ascii")
        if len(name) > _NAME_LIMIT:
            raise ProxyError(proxy, f"accepts no host name of more than {_NAME_LIMIT} bytes") from None
        return bytes([_NAME, len(name)]) + name
    return bytes([_IPV4 if address.version == 4 else _IPV6]) + address.packed


def _login_request(proxy: Proxy) -> bytes:
    name, password = (proxy.username or "").encode(), proxy.password.encode()
    return bytes([_LOGIN_VERSION, len(name)]) + name + bytes([len(password)]) + password


def _receive_reply(proxy: Proxy, target: str, received: bytearray) -> Generator[bytes, bytes, None]:
    """Read the reply to the request, and ignore the address that the proxy connects from."""
    version, reply = yield from _receive(received, 2)
    if version != _VERSION:
        raise ProxyError(proxy, "does not speak SOCKS5")
    if reply:
        why = _REPLIES.get(reply, f"failure {reply}")
        raise ProxyError(proxy, f'answered "{why}" to the request for {target}')
    _, kind = yield from _receive(received, 2)
    size = (yield from _receive(received, 1))[0] if kind == _NAME else _SIZES.get(kind)
    if size is None:
        raise ProxyError(proxy, "does not speak SOCKS5")
    yield from _receive(received, size + 2)


def _receive(received: bytearray, size: int) -> ProxyHandshake:
    """Wait for so many bytes and return them; ``received`` keeps the rest."""
    while len(received) < size:
        received += yield b""
    taken = bytes(received[:size])
    del received[:size]
    return taken


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
