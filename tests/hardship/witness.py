"""A registry that looks at every byte that it is sent, and serves one image."""

from __future__ import annotations

import json
import re
import socketserver
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.integration.parts.images import Image

from .grammar import READ, Grammar, fault_of_request

_LENGTH = re.compile(rb"\r\nContent-Length: ([0-9]+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\nTransfer-Encoding: chunked\r\n", re.IGNORECASE)
_CONTENT_RANGE = re.compile(rb"\r\nContent-Range: [1-9]", re.IGNORECASE)
_CHANGES = ("POST", "PATCH", "PUT", "DELETE")
_SIZE = re.compile(rb"([0-9a-f]+)\r\n")


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128
    witness: Witness


class _Connection(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        with suppress(ConnectionError, _BrokenOff):
            while True:
                head = self._head()
                self._skip_body(head)
                self.wfile.write(self.server.witness.answer(head))

    def _head(self) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                if head:
                    self.server.witness.faults.append(f"half a head: {head!r}")
                raise _BrokenOff
            head += line
        return head

    def _skip_body(self, head: bytes) -> None:
        length = _LENGTH.search(head)
        if length:
            self._skip(int(length[1]))
        elif _CHUNKED.search(head):
            while self._skip_piece():
                pass

    def _skip_piece(self) -> bool:
        """Read one chunk; return False after the last."""
        line = self.rfile.readline()
        size = _SIZE.fullmatch(line)
        if not size:
            if line:
                self.server.witness.faults.append(f"no size of a piece: {line!r}")
            raise _BrokenOff
        count = int(size[1], 16)
        if self._skip(count + 2)[-2:] != b"\r\n":
            self.server.witness.faults.append(f"a piece of {count} without its end")
        return count > 0

    def _skip(self, count: int) -> bytes:
        data = self.rfile.read(count)
        if len(data) < count:
            raise _BrokenOff
        return data


class _BrokenOff(Exception):
    """A client may end a connection whenever it likes."""


class Witness:
    """Serves *image* in every repository, and keeps what was wrong with what it was asked.

    It takes whatever it is to take, and forgets it; a chunk that does not begin at 0 is not the next one.

    :param grammar: what it may be asked.
    :ivar asked: the first lines of all requests.
    :ivar faults: what a well-formed client would not have sent.
    """

    def __init__(self, image: Image, grammar: Grammar = READ) -> None:
        self.asked: list[str] = []
        self.faults: list[str] = []
        self._grammar = grammar
        self._image = image
        self._server = _Server(("127.0.0.1", 0), _Connection)
        self._server.witness = self
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.host}"

    def answer(self, head: bytes) -> bytes:
        """The response to a request."""
        line = head.partition(b"\r\n")[0].decode("latin-1")
        self.asked.append(line)
        fault = fault_of_request(head, self.host, self._grammar)
        if fault is not None:
            self.faults.append(f"{fault} in {head!r}")
        method, _, rest = line.partition(" ")
        path = rest.rpartition(" ")[0].partition("?")[0]
        if (method in _CHANGES and path != "/token") or "/uploads/" in path:
            response, body = _taken(method, path, _CONTENT_RANGE.search(head)), b""
        else:
            response, body = self._answer(path, b"Authorization" in head)
        lines = (response, f"Content-Length: {len(body)}", "", "")
        return "\r\n".join(lines).encode() + (b"" if method == "HEAD" else body)

    def _answer(self, path: str, authorized: bool) -> tuple[str, bytes]:
        if path == "/token":
            return "HTTP/1.1 200 OK", json.dumps({"token": "of-the-witness", "expires_in": 300}).encode()
        if not authorized:
            challenge = f'WWW-Authenticate: Bearer realm="{self.url}/token",service="witness"'
            return f"HTTP/1.1 401 Unauthorized\r\n{challenge}", b'{"errors": []}'
        if "/manifests/" in path:
            content = self._image.manifest
            return f"HTTP/1.1 200 OK\r\nContent-Type: {content.media_type}", content.data
        if path.endswith("/tags/list"):
            named = {"name": path.removeprefix("/v2/").removesuffix("/tags/list"), "tags": ["latest"]}
            return "HTTP/1.1 200 OK\r\nContent-Type: application/json", json.dumps(named).encode()
        for blob in self._image.blobs:
            if path.endswith(blob.digest):
                return "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream", blob.data
        return "HTTP/1.1 404 Not Found\r\nContent-Type: application/json", b'{"errors": []}'

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _taken(method: str, path: str, later: object) -> str:
    """The answer of a registry that takes everything."""
    begun, uploads, _ = path.partition("/uploads/")
    where = f"Location: {begun}/uploads/1?state=2\r\nRange: 0-4" if uploads else "Location: /v2/a"
    statuses = {"GET": "204 No Content", "HEAD": "204 No Content", "PUT": "201 Created"}
    status = "416 Range Not Satisfiable" if later else statuses.get(method, "202 Accepted")
    return f"HTTP/1.1 {status}\r\n{where}"
