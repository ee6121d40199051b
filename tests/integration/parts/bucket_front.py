"""An object store that is watched: what it is asked is counted, and it may be down, or slow."""

from __future__ import annotations

import http.client
from contextlib import closing
from urllib.parse import unquote, urlsplit

from .cdn import CdnRequest, recorded
from .faults import Fault, Stall
from .seaweed import SeaweedFS
from .server import Exchange, Server
from .valve import Valve

_PIECE = 256 * 1024
_OURS = {"connection", "keep-alive", "content-length", "transfer-encoding", "date", "server"}


class BucketFront(Server):
    """Passes everything to SeaweedFS as it came, so that signatures hold."""

    def __init__(self, seaweedfs: SeaweedFS) -> None:
        class Pass(_Pass):
            front = self

        super().__init__("127.0.0.1", Pass)
        self.seaweedfs = seaweedfs
        self.requests: list[CdnRequest] = []
        self.fault: Fault | Stall | None = None
        self.valve = Valve()


class _Pass(Exchange):
    front: BucketFront

    def do_GET(self) -> None:
        body, fault = self.body(), self.front.fault
        if isinstance(fault, Stall):
            self._record(0)
            fault.over.wait()
        if isinstance(fault, Fault):
            self._record(fault.status)
            self.answer(fault.status, fault.body, **fault.headers)
            return
        server = urlsplit(self.front.seaweedfs.endpoint)
        with closing(http.client.HTTPConnection(str(server.hostname), server.port)) as connection:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body or None)
            response = connection.getresponse()
            self._record(response.status)
            self._relay(response)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _relay(self, response: http.client.HTTPResponse) -> None:
        self.send_response_only(response.status)
        for name, value in response.getheaders():
            if name.lower() not in _OURS:
                self.send_header(name, value)
        length = response.getheader("Content-Length")
        whole = response.read() if length is None else b""
        self.send_header("Content-Length", length or str(len(whole)))
        self.end_headers()
        self.wfile.write(whole)
        if length is not None and self.command != "HEAD":
            self._pass_on(response, int(length))

    def _pass_on(self, response: http.client.HTTPResponse, length: int) -> None:
        for part in self.front.valve.pieces(range(length)):
            left = len(part)
            while left:
                piece = response.read(min(left, _PIECE))
                if not piece:
                    raise ConnectionError("the server is gone")
                self.wfile.write(piece)
                left -= len(piece)

    def _record(self, status: int) -> None:
        if "/dockmirror/recalls" in unquote(self.path):  # every ten seconds, whatever a test does
            return
        self.front.requests.append(recorded(self, status))
