"""Clients that read slowly."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

_RECEIVE_BUFFER = 64 * 1024
_READ = 32 * 1024
_TICK = 0.1


def read_slowly(url: str, clients: int, seconds: float) -> None:
    """Read at most 32 KiB ten times a second on each connection, for a time, and disconnect."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    opened = []
    for _ in range(clients):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        client.connect((parts.hostname, parts.port))
        client.sendall(request)
        opened.append(client)
    for client in opened:
        if not client.recv(12).endswith(b" 200"):
            raise ConnectionError("an answer of another status")
        client.setblocking(False)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for client in opened:
            _read(client)
        time.sleep(_TICK)
    for client in opened:
        client.close()


def _read(client: socket.socket) -> None:
    try:
        if not client.recv(_READ):
            raise ConnectionError("cut off")
    except BlockingIOError:
        pass
