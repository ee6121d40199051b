"""A registry that accepts pushes and discards them; the kernel does not even copy the bytes."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from urllib.parse import parse_qs, urlsplit

from demo.program import free_port, listens, running

from .peer import Peer, repository

NAME = "the registry itself"
_PIECE = 1024 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


@contextmanager
def sink(directory: Path) -> Iterator[Peer]:
    """Run the registry in its own process."""
    port = free_port()
    command = [sys.executable, "-m", "bench.peers.sink", str(port)]
    with running(command, partial(listens, port), directory / "sink.log", os.environ) as pid:
        yield Peer(NAME, f"http://127.0.0.1:{port}/v2/{repository(NAME)}", pid)


class _Server(ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128


class _Connection(StreamRequestHandler):
    rbufsize = 0
    disable_nagle_algorithm = True

    def handle(self) -> None:
        self._buffer = bytearray(_PIECE)
        while head := self._head():
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            self._discard(head)
            self.request.sendall(_answer(method, target))

    def _head(self) -> bytes:
        """Read a request's head and no byte of its body; return nothing at the end of the connection."""
        while seen := self.request.recv(_PIECE, socket.MSG_PEEK):
            end = seen.find(b"\r\n\r\n")
            if end >= 0:
                return bytes(self.request.recv(end + 4))
        return b""

    def _discard(self, head: bytes) -> None:
        length = _LENGTH.search(head)
        if length:
            self._throw_away(int(length[1]))
        elif _CHUNKED.search(head):
            while size := int(self.rfile.readline(), 16):
                self._throw_away(size + 2)
            self.rfile.readline()

    def _throw_away(self, left: int) -> None:
        while left:
            count = self.request.recv_into(self._buffer, min(left, _PIECE), socket.MSG_TRUNC)
            if not count:
                raise ConnectionError(f"closed {left} bytes before the end")
            left -= count


def _answer(method: str, target: str) -> bytes:
    url = urlsplit(target)
    uploads, digest = url.path, parse_qs(url.query).get("digest", [""])[0]
    if method == "POST":
        return _head("202 Accepted", f"Location: {uploads}1?state=1", "Range: 0-0", "Docker-Upload-UUID: 1")
    if method == "PUT":
        blob = uploads.partition("/uploads/")[0]
        return _head("201 Created", f"Location: {blob}/{digest}", f"Docker-Content-Digest: {digest}")
    return _head("200 OK" if url.path == "/v2/" else "404 Not Found")


def _head(status: str, *fields: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", "Content-Length: 0", *fields, "", ""]).encode()


if __name__ == "__main__":
    with _Server(("127.0.0.1", int(sys.argv[1])), _Connection) as server:
        server.serve_forever()
