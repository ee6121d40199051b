"""Clients that speak TLS to a port of plain HTTP, or plain HTTP to a port of TLS."""

from __future__ import annotations

from math import inf

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger

from ..oci.errors import RegistryError, Unsupported

_PERIOD = 60.0
_RECORD = b"\x16\x03"
"""The first bytes of a TLS handshake (RFC 8446, 5.1), with which no HTTP request begins."""
_log = Logger()


def is_tls_hello(data: bytes | bytearray) -> bool:
    """Return whether a connection began with a TLS handshake."""
    return data.startswith(_RECORD)


def tls_hello_error() -> RegistryError:
    """Return the response: from its plain HTTP the client learns what is wrong, and says so."""
    return Unsupported("this port speaks plain HTTP, and the client spoke TLS: use http://", status=400)


def is_plain_http(data: bytes) -> bool:
    """Return whether a connection began with a method instead of a TLS handshake."""
    return data[:1].isupper()


def plain_http_response() -> bytes:
    """Return the whole response to a client of plain HTTP, which could read no alert."""
    body = Unsupported("this port speaks TLS, and the client spoke plain HTTP: use https://").body()
    return (
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        b"Connection: close\r\n\r\n%b" % (len(body), body)
    )


class TlsHelloLog:
    """Logs such clients, once a minute at most."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._logged = -inf
        self._more = 0

    def add(self, peer: IAddress) -> None:
        """Take note of a client."""
        now = self._clock.seconds()
        if 0 <= now - self._logged < _PERIOD:
            self._more += 1
            return
        _log.info(
            "{client} spoke TLS to a port of plain HTTP{more}: it needs http://, or the mirror an https:"
            " endpoint (dockerd tries TLS first even where insecure-registries has the mirror)",
            client=getattr(peer, "host", "a client").removeprefix("::ffff:"),
            more=f", as did {self._more} others since the last such line" if self._more else "",
        )
        self._logged, self._more = now, 0
