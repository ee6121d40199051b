"""Small backends of a load balancer: each answers with its own number, until it hangs."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO, Self

_LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)
_UNFINISHED = 64 * 1024


class NumberedBackend:
    """Answers every request with its number; the body of a blob of ``unfinished`` never ends.

    :ivar port: a free port of the loopback interface.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._hangs = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listening.getsockname()[1]
        self._connections: list[socket.socket] = []

    def hang(self) -> None:
        """Answer nothing any more, but accept connections, as a stopped process does."""
        self._hangs.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in (self._listening, *self._connections):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection.makefile("rb") as received:
            while head := _head(received):
                if self._hangs.is_set():
                    continue
                received.read(_length(head))
                body = b"%d" % self.number
                length = _UNFINISHED if head.startswith(b"GET /v2/unfinished/") else len(body)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + body)


def _head(received: BinaryIO) -> bytes:
    """The request line and the headers of the next request; nothing at the end."""
    lines: list[bytes] = []
    while (line := received.readline()) not in (b"", b"\r\n"):
        lines.append(line)
    return b"".join(lines)


def _length(head: bytes) -> int:
    found = _LENGTH.search(head)
    return int(found[1]) if found else 0
