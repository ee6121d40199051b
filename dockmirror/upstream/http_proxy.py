"""A connection through an HTTP proxy, opened by CONNECT (RFC 9110, 9.3.6).

It serves requests to ``http`` addresses, too, instead of their absolute form (RFC 9112, 3.2.2): there the
proxy's credentials would have to stand in every request, and a proxy that does not ask for them may pass
them on to the upstream (RFC 9110, 11.7.2); and no proxy between can cache or rewrite what passes through a
tunnel.  The price: many proxies connect to port 443 only, until their operator allows them another one.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from ..oci.credentials import Credentials
from .proxy import Proxy, ProxyError, ProxyHandshake, authority

_BEGINNING = b"HTTP/1."
_STATUS = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})(?:[ \r\n]|$)")
_LOGIN_REFUSED = {HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, HTTPStatus.UNAUTHORIZED}  # tinyproxy says 401
_END = re.compile(rb"\r?\n\r?\n")


def handshake(proxy: Proxy, host: str, port: int) -> ProxyHandshake:
    """Asks for a connection to that host, with the proxy's credentials where it has any (Basic, RFC 7617).

    Whatever a 2xx says of a body is ignored: what follows its headers is the connection's.
    """
    received = bytearray()
    received += yield _request(proxy, host, port)
    while True:
        end = _END.search(received)
        if end is None:
            if not received.startswith(_BEGINNING[: len(received)]):
                raise ProxyError(proxy, "does not speak HTTP/1.1")
            received += yield b""
            continue
        status = _status(proxy, bytes(received[: end.start()]))
        del received[: end.end()]
        if status // 100 == 2:
            return bytes(received)
        if status // 100 != 1 or status == HTTPStatus.SWITCHING_PROTOCOLS:
            raise ProxyError(proxy, _why(proxy, status, authority(host, port)), status)


def _request(proxy: Proxy, host: str, port: int) -> bytes:
    target = authority(host, port)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.username is not None:
        lines.append(f"Proxy-Authorization: {Credentials.basic(proxy.username, proxy.password).header}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _status(proxy: Proxy, head: bytes) -> int:
    match = _STATUS.match(head)
    if match is None:
        raise ProxyError(proxy, "does not speak HTTP/1.1")
    return int(match[1])


def _why(proxy: Proxy, status: int, target: str) -> str:
    """The status in the specification's words; in its own the proxy could repeat what it was sent."""
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    more = ""
    if status in _LOGIN_REFUSED:
        wants = (
            "wants a name and a password" if proxy.username is None else "refuses the name or the password"
        )
        more = f": it {wants}"
    return f"answered {status}{phrase} to CONNECT {target}{more}"
