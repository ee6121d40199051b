"""A registry's front that keeps its blobs elsewhere, as the large public registries do."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

from .cdn import BlobStore, CdnRequest, recorded
from .faults import Fault, Stall
from .registry import Registry
from .server import Exchange, Server

_BLOB = re.compile(r"/v2/.+/blobs/sha256:(?P<hex>[0-9a-f]{64})")
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
_PIECE = 64 * 1024


class Front(Server):
    """The registry as its clients see it: blobs redirect to :class:`BlobStore`, all else passes through."""

    def __init__(self, registry: Registry, store: BlobStore) -> None:
        class Pass(_Pass):
            front = self

        super().__init__("127.0.0.1", Pass)
        self.registry = registry
        self.store = store
        self.requests: list[CdnRequest] = []
        self.fault: Fault | Stall | None = None

    @property
    def netloc(self) -> str:
        """Host and port, as the first part of an image's name."""
        return f"{self.host}:{self.port}"


class _Pass(Exchange):
    front: Front

    def do_GET(self) -> None:
        fault = self.front.fault
        if isinstance(fault, Fault):
            self._record(fault.status)
            self.answer(fault.status, fault.body, **fault.headers)
            return
        if isinstance(fault, Stall):
            self._record(0)
            fault.over.wait()
        self._pass()

    def _pass(self) -> None:
        blob = _BLOB.fullmatch(urlsplit(self.path).path)
        if blob and self.command in ("GET", "HEAD"):
            with self._asked("HEAD") as response:
                allowed = response.status in (200, 206)
            if allowed:
                self._record(307)
                self.answer(307, Location=self.front.store.location(blob["hex"]))
                return
        with self._asked(self.command) as response:
            self._record(response.status)
            self._relay(response)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    @contextmanager
    def _asked(self, method: str) -> Iterator[http.client.HTTPResponse]:
        registry = self.front.registry
        with closing(http.client.HTTPConnection(registry.host, registry.port)) as connection:
            connection.putrequest(method, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                self._forward_chunks(connection)
            else:
                self._forward(connection, int(self.headers.get("Content-Length", 0)))
            yield connection.getresponse()

    def _forward(self, connection: http.client.HTTPConnection, size: int) -> None:
        while size:
            piece = self.rfile.read(min(size, _PIECE))
            if not piece:
                raise ConnectionAbortedError("the client has closed the connection")
            connection.send(piece)
            size -= len(piece)

    def _forward_chunks(self, connection: http.client.HTTPConnection) -> None:
        while True:
            line = self.rfile.readline()
            connection.send(line)
            self._forward(connection, int(line, 16) + len(b"\r\n"))
            if int(line, 16) == 0:
                return

    def _relay(self, response: http.client.HTTPResponse) -> None:
        self.send_response_only(response.status)
        for name, value in response.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        length = response.getheader("Content-Length")
        bodiless = self.command == "HEAD" or response.status in (204, 304)
        if length:
            self.send_header("Content-Length", length)
        elif not bodiless:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while piece := b"" if bodiless else response.read(_PIECE):
            self.wfile.write(piece if length else b"%x\r\n%s\r\n" % (len(piece), piece))
        if not length and not bodiless:
            self.wfile.write(b"0\r\n\r\n")

    def _record(self, status: int) -> None:
        self.front.requests.append(recorded(self, status))
