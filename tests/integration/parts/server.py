"""An HTTP/1.1 server in a thread of its own, for the parts that exist only in the tests."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from .authority import Certificate
from .process import free_port


class Exchange(BaseHTTPRequestHandler):
    """A connection kept alive, whose answers carry their length and whose requests are not printed."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    server: _Server

    def parse_request(self) -> bool:
        """Return True if the request is still to be answered: a fault may have answered it."""
        return super().parse_request() and not self.server.owner.meddled(self)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a whole response; an underscore in a header's name stands for a hyphen."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        """The whole body of the request."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing: what was asked is recorded, not logged."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], exchange: type[Exchange], owner: Server) -> None:
        super().__init__(address, exchange)
        self.owner = owner
        self._connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves in the middle is nothing to report."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        """Close the connections that are kept alive, too."""
        super().server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


Meddling = Callable[[Exchange], bool]
"""Answers a request in place of who should, and says whether it has."""


class Server:
    """Serves one kind of :class:`Exchange` on a free port of *host*, from start to stop.

    :param certificate: serve TLS with it.
    """

    def __init__(self, host: str, exchange: type[Exchange], certificate: Certificate | None = None) -> None:
        self.host = host
        self.port = free_port(host)
        self._exchange = exchange
        self._certificate = certificate
        self._server: _Server | None = None
        self._meddling: Meddling | None = None

    @property
    def url(self) -> str:
        """The origin of the server."""
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Listen; from here on connections are accepted."""
        self._server = _Server((self.host, self.port), self._exchange, self)
        if self._certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(self._certificate.certificate, self._certificate.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Accept no more connections, and drop those that are open."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop listening until the end of the block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def meddled_with(self, meddling: Meddling) -> Iterator[None]:
        """Give each request to *meddling* first, until the end of the block."""
        self._meddling = meddling
        try:
            yield
        finally:
            self._meddling = None

    def meddled(self, exchange: Exchange) -> bool:
        """Return True if the fault has answered that request."""
        return self._meddling is not None and self._meddling(exchange)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
