"""A registry that limits the rate of each connection, for blobs by digest."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from attrs import define, field, frozen

from .blob import LargeBlob, Server

_PIECE = 64 * 1024


@define
class Sent:
    """The number of bytes sent of each blob, by digest."""

    _bytes: dict[str, int] = field(factory=dict)
    _lock: threading.Lock = field(factory=threading.Lock)

    def __getitem__(self, digest: str) -> int:
        return self._bytes.get(digest, 0)

    def add(self, digest: str, count: int) -> None:
        with self._lock:
            self._bytes[digest] = self[digest] + count


@frozen
class Capped:
    """The address of the registry, and the bytes that it has sent."""

    url: str
    sent: Sent


@contextmanager
def capped_registry(blobs: Iterable[LargeBlob], rate: float, away: float = 0.0) -> Iterator[Capped]:
    """Run a registry without tokens that has these blobs in every repository."""
    registry_sent = Sent()

    class Exchange(_Exchange):
        blobs_by_digest = {blob.digest(): blob for blob in blobs}
        bytes_per_second = rate
        seconds_away = away
        sent = registry_sent

    server = Server(("127.0.0.1", 0), Exchange)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield Capped(f"http://127.0.0.1:{server.server_port}", registry_sent)
    finally:
        server.shutdown()
        server.server_close()


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    blobs_by_digest: Mapping[str, LargeBlob]
    bytes_per_second: float
    seconds_away: float
    sent: Sent

    def do_GET(self) -> None:
        time.sleep(self.seconds_away)
        digest = self.path.rpartition("/")[2]
        blob = self.blobs_by_digest.get(digest)
        size = blob.size if blob else 0
        part = _part(self.headers.get("Range"), size)
        self.send_response(206 if part else 200)
        if part:
            self.send_header("Content-Range", f"bytes {part.start}-{part.stop - 1}/{size}")
        part = part or range(size)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if blob and self.command == "GET":
            self._send(blob, digest, part)

    do_HEAD = do_GET

    def _send(self, blob: LargeBlob, digest: str, part: range) -> None:
        """Send small pieces, none of them sooner than the rate allows."""
        view, started, offset = memoryview(blob.piece), time.monotonic(), part.start
        while offset < part.stop:
            begin = offset % len(view)
            piece = view[begin : begin + min(_PIECE, part.stop - offset)]
            self.wfile.write(piece)
            self.sent.add(digest, len(piece))
            offset += len(piece)
            due = started + (offset - part.start) / self.bytes_per_second
            time.sleep(max(0.0, due - time.monotonic()))

    def log_message(self, format: str, *args: object) -> None: ...


def _part(asked: str | None, size: int) -> range | None:
    """Return a single range that begins with an offset, or None for the whole blob."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
    return range(int(match[1]), min(int(match[2]) + 1 if match[2] else size, size)) if match else None
