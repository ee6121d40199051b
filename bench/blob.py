"""A registry of one large blob, which it makes while it sends it."""

from __future__ import annotations

import hashlib
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from attrs import field, frozen

_PIECE = 1024 * 1024


@frozen
class LargeBlob:
    """A piece of random bytes, repeated; its digest is computed without keeping the whole."""

    pieces: int
    piece: bytes = field(repr=False, factory=lambda: random.Random(0).randbytes(_PIECE))

    @property
    def size(self) -> int:
        """Bytes of the whole."""
        return self.pieces * _PIECE

    def digest(self) -> str:
        """The digest of the whole."""
        hashed = hashlib.sha256()
        for _ in range(self.pieces):
            hashed.update(self.piece)
        return f"sha256:{hashed.hexdigest()}"


@contextmanager
def blob_registry(blob: LargeBlob) -> Iterator[str]:
    """The address of a registry without tokens that gives this blob for every path but ``/v2/``."""

    class Exchange(_Exchange):
        sent = blob

    server = Server(("127.0.0.1", 0), Exchange)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Server(ThreadingHTTPServer):
    """A thread for each connection."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that the mirror drops is nothing to report."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sent: LargeBlob

    def do_GET(self) -> None:
        pieces = 0 if self.path == "/v2/" else self.sent.pieces
        self.send_response(200)
        self.send_header("Content-Length", str(pieces * _PIECE))
        self.end_headers()
        for _ in range(pieces):
            self.wfile.write(self.sent.piece)

    def log_message(self, format: str, *args: object) -> None:
        """Prints nothing."""
