"""A registry that looks at every byte that it is sent, and serves one image."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import threading
from types import TracebackType
from typing import Self

from tests.integration.parts.images import Image

from .grammar import ASKED, fault_of_request

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\nContent-Length: ([0-9]+)\r\n", re.IGNORECASE)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128
    witness: Witness


class _Connection(socketserver.BaseRequestHandler):
    server: _Server
    request: socket.socket

    def handle(self) -> None:
        received = b""
        while True:
            while _END not in received:
                piece = self.request.recv(65536)
                if not piece:
                    if received:
                        self.server.witness.faults.append(f"half a head: {received!r}")
                    return
                received += piece
            head, _, received = received.partition(_END)
            length = _LENGTH.search(head + b"\r\n")
            while length and len(received) < int(length[1]):
                received += self.request.recv(65536)
            received = received[int(length[1]) :] if length else received
            self.request.sendall(self.server.witness.answer(head + _END))


class Witness:
    """Serves *image* in every repository, and keeps what was wrong with what it was asked.

    :ivar asked: the first lines of all requests.
    :ivar faults: what a well-formed client would not have sent.
    """

    lines = ASKED

    def __init__(self, image: Image) -> None:
        self.asked: list[str] = []
        self.faults: list[str] = []
        self._image = image
        self._server = _Server(("127.0.0.1", 0), _Connection)
        self._server.witness = self
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.host}"

    def answer(self, head: bytes) -> bytes:
        """The response to a request."""
        line = head.partition(b"\r\n")[0].decode("latin-1")
        self.asked.append(line)
        fault = fault_of_request(head, self.host, self.lines)
        if fault is not None:
            self.faults.append(f"{fault} in {head!r}")
        method, _, rest = line.partition(" ")
        response, body = self._answer(rest.rpartition(" ")[0].partition("?")[0], b"Authorization" in head)
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
