"""Connections that repeat one request and discard the responses."""

from __future__ import annotations

import re
import selectors
import socket
import ssl
import time
from urllib.parse import urlsplit

from attrs import frozen

_READ = 1024 * 1024
_HEAD = 16 * 1024


@frozen
class Drained:
    """The bytes received, and the time they took."""

    seconds: float
    bytes: int
    first_bytes: tuple[float, ...]

    @property
    def rate(self) -> float:
        """The rate in megabytes a second."""
        return self.bytes / self.seconds / 1e6


def drain(url: str, connections: int = 1, seconds: float | None = None) -> Drained:
    """Send the request on each connection, repeatedly for so many seconds, or once."""
    opened = [_Connection(url) for _ in range(connections)]
    with selectors.DefaultSelector() as selector:
        for each in opened:
            selector.register(each.socket, selectors.EVENT_READ, each)
        started = time.monotonic()
        for each in opened:
            each.ask()
        while selector.get_map() and (seconds is None or time.monotonic() - started < seconds):
            for key, _ in selector.select(1):
                if key.data.read():
                    if seconds is None:
                        selector.unregister(key.fileobj)
                    else:
                        key.data.ask()
        ended = time.monotonic()
    for each in opened:
        each.socket.close()
    firsts = sorted(each.first - started for each in opened if each.first is not None)
    return Drained(ended - started, sum(each.count for each in opened), tuple(firsts))


class _Connection:
    """:ivar count: the number of bytes of bodies received."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self.socket = socket.create_connection((parts.hostname, parts.port))
        self.count = 0
        self.first: float | None = None
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        self._request = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
        self._head = b""
        self._left: int | None = None
        self._buffer, self._flags = bytearray(_READ), int(socket.MSG_TRUNC)
        if parts.scheme == "https":
            trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
            self.socket, self._flags = trusting.wrap_socket(self.socket), 0

    def ask(self) -> None:
        """Send the request again."""
        self._head, self._left = b"", None
        self.socket.sendall(self._request)

    def read(self) -> bool:
        """Read what has arrived; return True at the end of a response."""
        if self._left is None:
            self._read_head()
        else:
            self._took(self.socket.recv_into(self._buffer, min(_READ, self._left), self._flags))
        while isinstance(self.socket, ssl.SSLSocket) and self._left and self.socket.pending():
            self._took(self.socket.recv_into(self._buffer, min(_READ, self._left)))
        return self._left == 0

    def _read_head(self) -> None:
        data = self.socket.recv(_HEAD)
        if not data:
            raise ConnectionError("closed before it answered")
        self._head += data
        head, ended, body = self._head.partition(b"\r\n\r\n")
        if ended:
            length = re.search(rb"\r\nContent-Length: *(\d+)", head, re.IGNORECASE)
            if length is None or not head.startswith(b"HTTP/1.1 200 "):
                raise ConnectionError(head.decode("latin-1"))
            self._left = int(length[1])
            if body:
                self._took(len(body))

    def _took(self, count: int) -> None:
        if not count or self._left is None:
            raise ConnectionError(f"closed {self._left} bytes before the end")
        if self.first is None:
            self.first = time.monotonic()
        self.count += count
        self._left -= count
