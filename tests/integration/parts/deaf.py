"""A registry that does not read what is pushed until an event is set, and a client that pushes to it."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

_MIB = 1024 * 1024
_STILL = 1.0


class Deaf:
    """An upstream that begins uploads, and takes nothing of them until it listens."""

    def __init__(self) -> None:
        self.listens = threading.Event()
        self.taken = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Serves nobody any more."""
        self.listens.set()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(ConnectionError), connection.makefile("rb") as received:
            while line := received.readline():
                length = 0
                for field in iter(received.readline, b"\r\n"):
                    if not field:
                        return
                    if field.lower().startswith(b"content-length:"):
                        length = int(field.partition(b":")[2])
                if line.startswith(b"PATCH"):
                    self.listens.wait()
                    while self.taken < length and (piece := received.read1(_MIB)):
                        self.taken += len(piece)
                uploads = b"Location: /v2/pushed/large/blobs/uploads/x\r\nContent-Length: 0\r\n\r\n"
                connection.sendall(b"HTTP/1.1 202 Accepted\r\n" + uploads)


class Pushing(threading.Thread):
    """A client that sends so many bytes to an upload, as fast as they are read.

    :ivar sent: how many were, so far.
    """

    def __init__(self, connection: socket.socket, host: str, location: str, size: int) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self._moved = time.monotonic()
        self._connection = connection
        self._head = f"PATCH {location} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n"
        self._size = size

    def run(self) -> None:
        """See ``Thread``."""
        self._connection.sendall(self._head.encode())
        while self.sent < self._size:
            self._connection.sendall(bytes(_MIB))
            self.sent, self._moved = self.sent + _MIB, time.monotonic()

    def waits(self) -> bool:
        """Return True once no byte has been taken for a while."""
        return time.monotonic() - self._moved > _STILL
