"""Large blobs that are generated while they are sent."""

from __future__ import annotations

import hashlib
import random
import sys
from http.server import ThreadingHTTPServer

from attrs import field, frozen

_PIECE = 1024 * 1024


@frozen
class LargeBlob:
    """A repeated piece of random bytes, whose digest is computed without keeping the blob in memory."""

    pieces: int
    piece: bytes = field(repr=False, factory=lambda: random.Random(0).randbytes(_PIECE))

    @property
    def size(self) -> int:
        """The size of the blob in bytes."""
        return self.pieces * _PIECE

    def digest(self) -> str:
        """The digest of the blob."""
        hashed = hashlib.sha256()
        for _ in range(self.pieces):
            hashed.update(self.piece)
        return f"sha256:{hashed.hexdigest()}"


class Server(ThreadingHTTPServer):
    """A server with a thread for each connection."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore connections that the mirror drops."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]
