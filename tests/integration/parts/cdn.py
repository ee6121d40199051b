"""A CDN, which hands out blobs to whoever brings a signed URL, and is confused by any other credentials."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .registry import Registry
from .server import Exchange, Server
from .valve import Valve

#: The name of the host that hands out the bytes; the clients' hosts files know it.
CDN_HOST = "cdn.test"
CDN_ADDRESS = "127.0.0.3"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class CdnRequest:
    """One request that the front or the store behind it got, and how it was answered.

    *connection* is the port at the other end.
    """

    method: str
    path: str
    range: str | None
    authorized: bool
    status: int
    connection: int


class BlobStore(Server):
    """Hands out a registry's blobs to whoever knows the signed URL, and takes no other credentials.

    Without *ranges* it sends the whole, whatever part is asked for.
    """

    def __init__(self, registry: Registry) -> None:
        class Fetch(_Fetch):
            store = self

        super().__init__(CDN_ADDRESS, Fetch)
        self.registry = registry
        self.requests: list[CdnRequest] = []
        self.valve = Valve()
        self.ranges = True

    def location(self, hexadecimal: str) -> str:
        """The signed URL of a blob."""
        return f"http://{CDN_HOST}:{self.port}/sha256/{hexadecimal}?signature=of-the-tests"


class _Fetch(Exchange):
    store: BlobStore

    def do_HEAD(self) -> None:
        self._refuse(403, "SignatureDoesNotMatch")  # the signature is for GET

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        file = self.store.registry.blob(url.path.rpartition("/")[2])
        if "Authorization" in self.headers:
            self._refuse(400, "InvalidArgument: Only one auth mechanism allowed")
        elif url.query != "signature=of-the-tests" or not file.is_file():
            self._refuse(403, "AccessDenied")
        else:
            self._send(file)

    def _send(self, file: Path) -> None:
        size = file.stat().st_size
        part = _resolve(self.headers.get("Range", ""), size) if self.store.ranges else None
        if part is not None and part.start >= part.stop:
            self._refuse(416, "InvalidRange", Content_Range=f"bytes */{size}")
            return
        status, sent = (200, range(size)) if part is None else (206, part)
        self._record(status)
        self.send_response(status)
        if part is not None:
            self.send_header("Content-Range", f"bytes {part.start}-{part.stop - 1}/{size}")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        with file.open("rb") as blob:
            for piece in self.store.valve.pieces(sent):
                self.connection.sendfile(blob, piece.start, len(piece))

    def _refuse(self, status: int, why: str, **headers: str) -> None:
        self._record(status)
        self.answer(status, f"<Error><Code>{why}</Code></Error>".encode(), Content_Type="text/xml", **headers)

    def _record(self, status: int) -> None:
        self.store.requests.append(recorded(self, status))


def recorded(exchange: Exchange, status: int) -> CdnRequest:
    """The record of a request and of its answer's status."""
    return CdnRequest(
        method=exchange.command,
        path=urlsplit(exchange.path).path,
        range=exchange.headers.get("Range"),
        authorized="Authorization" in exchange.headers,
        status=status,
        connection=exchange.client_address[1],
    )


def _resolve(asked: str, size: int) -> range | None:
    """The part of *size* bytes that is asked for; None where that is not one single range."""
    match = _RANGE.fullmatch(asked)
    if match is None:
        return None
    first, last = match.groups()
    if not first:
        return range(max(size - int(last), 0), size)
    return range(int(first), min(int(last) + 1 if last else size, size))
