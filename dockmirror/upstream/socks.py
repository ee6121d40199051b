"""A connection through a SOCKS5 proxy (RFC 1928), with a name and a password where it asks (RFC 1929)."""

from __future__ import annotations

from collections.abc import Generator
from ipaddress import ip_address

from .proxy import Proxy, ProxyError, ProxyHandshake, authority

_VERSION, _LOGIN_VERSION, _CONNECT = 5, 1, 1
_NO_LOGIN, _LOGIN = 0, 2
_IPV4, _NAME, _IPV6 = 1, 3, 4
_SIZES = {_IPV4: 4, _IPV6: 16}
_NAME_LIMIT = 255
_FAILURES = {
    1: "general SOCKS server failure",
    2: "connection not allowed by ruleset",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "command not supported",
    8: "address type not supported",
}


def handshake(proxy: Proxy, host: str, port: int) -> ProxyHandshake:
    """Asks for a connection to that host, which is told as an address where it is one, and else as a name."""
    target = _address(proxy, host) + port.to_bytes(2, "big")
    methods = bytes([_NO_LOGIN] if proxy.username is None else [_NO_LOGIN, _LOGIN])
    held = bytearray()
    held += yield bytes([_VERSION, len(methods)]) + methods
    version, method = yield from _take(held, 2)
    if version != _VERSION:
        raise ProxyError(proxy, "does not speak SOCKS5")
    if method not in methods:
        wants = "wants a name and a password" if proxy.username is None else "wants another kind of login"
        raise ProxyError(proxy, wants)
    if method == _LOGIN:
        held += yield _login(proxy)
        _, refused = yield from _take(held, 2)
        if refused:
            raise ProxyError(proxy, "refuses the name or the password")
    held += yield bytes([_VERSION, _CONNECT, 0]) + target
    yield from _answer(proxy, authority(host, port), held)
    return bytes(held)


def _address(proxy: Proxy, host: str) -> bytes:
    try:
        address = ip_address(host)
    except ValueError:
        name = host.encode("ascii")
        if len(name) > _NAME_LIMIT:
            raise ProxyError(proxy, f"can be told no name of more than {_NAME_LIMIT} bytes") from None
        return bytes([_NAME, len(name)]) + name
    return bytes([_IPV4 if address.version == 4 else _IPV6]) + address.packed


def _login(proxy: Proxy) -> bytes:
    name, password = (proxy.username or "").encode(), proxy.password.encode()
    return bytes([_LOGIN_VERSION, len(name)]) + name + bytes([len(password)]) + password


def _answer(proxy: Proxy, target: str, held: bytearray) -> Generator[bytes, bytes, None]:
    """Takes the answer to the request; which address the proxy connects from is of no interest."""
    version, reply = yield from _take(held, 2)
    if version != _VERSION:
        raise ProxyError(proxy, "does not speak SOCKS5")
    if reply:
        why = _FAILURES.get(reply, f"failure {reply}")
        raise ProxyError(proxy, f'answered "{why}" to the request for {target}')
    _, kind = yield from _take(held, 2)
    size = (yield from _take(held, 1))[0] if kind == _NAME else _SIZES.get(kind)
    if size is None:
        raise ProxyError(proxy, "does not speak SOCKS5")
    yield from _take(held, size + 2)


def _take(held: bytearray, size: int) -> ProxyHandshake:
    """So many bytes, waited for; what is held keeps the rest."""
    while len(held) < size:
        held += yield b""
    taken = bytes(held[:size])
    del held[:size]
    return taken
