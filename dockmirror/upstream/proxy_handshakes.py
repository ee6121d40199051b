"""The protocols that open a connection through a proxy: HTTP CONNECT and SOCKS5.

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

from ..oci.credentials import Credentials
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
