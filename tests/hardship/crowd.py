"""Very many connections at once, by one thread."""

from __future__ import annotations

import hashlib
import resource
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from tests.integration.parts.mirror import Mirror

from .wire import RESET

ELSEWHERE = "127.0.0.2"
"""A client network of its own."""
_TICK = 0.1
_PIECE = 256 * 1024
_WINDOW = 16 * 1024
"""Bytes that the system takes for a client that does not read."""


@contextmanager
def descriptors(count: int) -> Iterator[None]:
    """Raise the limit of this process to so many descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 1000)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def idle(mirror: Mirror, count: int, *, waiting: bool = True) -> Iterator[list[socket.socket]]:
    """Open idle connections from an address of their own; they are reset at the end.

    Nobody else lacks the ports that they take, and that closed ones would keep for a minute.

    :param waiting: whether each must be made before the next.
    """
    with descriptors(2 * count), ExitStack() as stack:
        connections = []
        for _ in range(count):
            connections.append(stack.enter_context(socket.socket()))
            connections[-1].settimeout(10 if waiting else 0)
            connections[-1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connections[-1].bind((ELSEWHERE, 0))
            with suppress(BlockingIOError):
                connections[-1].connect(("127.0.0.1", mirror.port))
        yield connections


def still_open(connections: list[socket.socket]) -> int:
    """The number of connections that the other end has not closed."""
    count = 0
    for each in connections:
        each.setblocking(False)
        try:
            count += each.recv(1) != b""
        except BlockingIOError:
            count += 1
        except OSError:
            pass
    return count


@dataclass
class Reader:
    """A client that reads a body and hashes it."""

    connection: socket.socket
    head: bytes = b""
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    count: int = 0
    over: bool = False

    def read(self, most: int) -> None:
        """Read the bytes that have been received, up to a number."""
        try:
            data = self.connection.recv(most)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.over = not data
        if b"\r\n\r\n" not in self.head:
            self.head, end, data = (self.head + data).partition(b"\r\n\r\n")
            self.head += end
        self.count += len(data)
        self.digest.update(data)


@contextmanager
def readers(mirror: Mirror, host: str, path: str, count: int) -> Iterator[list[Reader]]:
    """Have so many clients request the same, and read nothing yet."""
    asked = f"GET {path} HTTP/1.1\r\nHost: {mirror.host(host)}\r\nConnection: close\r\n\r\n".encode()
    with descriptors(count), ExitStack() as stack:
        everyone = []
        for _ in range(count):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WINDOW)
            connection.settimeout(30)
            connection.connect(("127.0.0.1", mirror.port))
            connection.sendall(asked)
            connection.setblocking(False)
            everyone.append(Reader(connection))
        yield everyone


def read_slowly(everyone: list[Reader], rate: int, seconds: float) -> None:
    """Have each client read so many bytes in a second."""
    end, tick = time.monotonic() + seconds, time.monotonic()
    while (now := time.monotonic()) < end:
        for each in everyone:
            each.read(int(rate * _TICK))
        tick += _TICK
        time.sleep(max(0.0, tick - now))


def read_to_the_end(everyone: list[Reader]) -> None:
    """Have all clients read as fast as they can, with large windows."""
    with selectors.DefaultSelector() as selector:
        for each in everyone:
            each.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PIECE)
            selector.register(each.connection, selectors.EVENT_READ, each)
        while selector.get_map():
            for key, _ in selector.select():
                key.data.read(_PIECE)
                if key.data.over:
                    selector.unregister(key.fileobj)
