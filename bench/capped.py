"""A registry whose connections are slow: blobs by their digests, at so many bytes a second each."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from attrs import define, field, frozen

from .blob import LargeBlob

_PIECE = 64 * 1024


@define
class Sent:
    """How many bytes of each blob were sent, by its digest."""

    _bytes: dict[str, int] = field(factory=dict)
    _lock: threading.Lock = field(factory=threading.Lock)

    def __getitem__(self, digest: str) -> int:
        return self._bytes.get(digest, 0)

    def add(self, digest: str, count: int) -> None:
        """So many more."""
        with self._lock:
            self._bytes[digest] = self[digest] + count


@frozen
class Capped:
    """Where it listens, and what it has sent."""

    url: str
    sent: Sent


@contextmanager
def capped_registry(blobs: Iterable[LargeBlob], rate: float) -> Iterator[Capped]:
    """A registry without tokens that has these blobs in every repository.

    :param rate: bytes a second that one connection sends.
    """
    registry_sent = Sent()

    class Exchange(_Exchange):
        blobs_by_digest = {blob.digest(): blob for blob in blobs}
        bytes_per_second = rate
        sent = registry_sent

    server = _Server(("127.0.0.1", 0), Exchange)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield Capped(f"http://127.0.0.1:{server.server_port}", registry_sent)
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    blobs_by_digest: Mapping[str, LargeBlob]
    bytes_per_second: float
    sent: Sent

    def do_GET(self) -> None:
        digest = self.path.rpartition("/")[2]
        blob = self.blobs_by_digest.get(digest)
        self.send_response(200)
        self.send_header("Content-Length", str(blob.size if blob else 0))
        self.end_headers()
        if blob and self.command == "GET":
            self._send(blob, digest)

    do_HEAD = do_GET

    def _send(self, blob: LargeBlob, digest: str) -> None:
        """In small pieces, none of them sooner than the rate allows."""
        view, started = memoryview(blob.piece), time.monotonic()
        for offset in range(0, blob.size, _PIECE):
            begin = offset % len(view)
            piece = view[begin : begin + _PIECE]
            self.wfile.write(piece)
            self.sent.add(digest, len(piece))
            time.sleep(max(0.0, started + (offset + len(piece)) / self.bytes_per_second - time.monotonic()))

    def log_message(self, format: str, *args: object) -> None:
        """Prints nothing."""
