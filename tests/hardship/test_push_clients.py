"""Clients that fail and lie while they push: their answers, and the requests of their upstream."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.conftest import MakeDirectory, MakeMachine
from tests.integration.parts.media import sha256
from tests.integration.parts.mirror import Mirror
from tests.integration.parts.process import wait_until
from tests.integration.parts.server import Exchange, Server

from .hostile import AMBIGUOUS, CHUNKS

pytestmark = pytest.mark.integration

UNWANTED = "smuggled"
BODY = b"5\r\nhello\r\n0\r\n\r\n"
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@dataclass(frozen=True)
class Seen:
    """A request as the upstream got it.

    :ivar body: as far as it came; None where it came to no end.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None


class _Exchange(Exchange):
    upstream: Upstream

    def do_POST(self) -> None:
        body = self._whole()
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.path.endswith("/uploads/"):
            self.upstream.begin()
        else:
            self.upstream.take(Seen(self.command, self.path, headers, body))
        if body is None:
            self.close_connection = True
        elif self.command == "PUT":
            self.answer(201, Location="/v2/a/b/blobs/x")
        else:
            status = 202 if self.command in ("POST", "PATCH") else 404
            self.answer(status, b"", Location=self.upstream.upload, Range="0-4")

    do_GET = do_HEAD = do_PATCH = do_PUT = do_DELETE = do_POST

    def _whole(self) -> bytes | None:
        try:
            return self._read()
        except ConnectionError:
            return None

    def _read(self) -> bytes | None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            pieces = []
            while line := self.rfile.readline():
                size = int(line, 16)
                pieces.append(self.rfile.read(size))
                if self.rfile.readline() != b"\r\n":
                    return None
                if not size:
                    return b"".join(pieces)
            return None
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size)
        return body if len(body) == size else None


class Upstream(Server):
    """Takes all that it is given, and remembers what came since the last upload began.

    What was broken off before may be noticed late: it is known by the upload that it was for.

    :ivar upload: where the last upload goes on.
    """

    def __init__(self) -> None:
        class Asked(_Exchange):
            upstream = self

        super().__init__("127.0.0.1", Asked)
        self.upload = ""
        self._seen: list[Seen] = []
        self._uploads = 0
        self.begin()

    def begin(self) -> None:
        """Another upload; what came before is forgotten."""
        self._uploads += 1
        self.upload = f"/v2/a/b/blobs/uploads/{self._uploads}?state=2"
        self._seen.clear()

    def take(self, seen: Seen) -> None:
        """A request has come, or as much of it as will."""
        self._seen.append(seen)

    @property
    def seen(self) -> list[Seen]:
        """The requests, in order."""
        return [
            each for each in self._seen if each.path.startswith(self.upload) or "/uploads/" not in each.path
        ]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """A registry that records its requests."""
    with Upstream() as server:
        yield server


@pytest.fixture(scope="module")
def mirror(directory: MakeDirectory, make_machine: MakeMachine, upstream: Upstream) -> Iterator[Mirror]:
    """A mirror of it through which one may push, beside one through which one may not."""
    upstreams: dict[str, dict[str, Any]] = {
        "open": {"url": upstream.url, "writes": True, "timeout": 5},
        "direct": {"url": upstream.url, "writes": True},
        "basic": {"url": upstream.url},
    }
    with Mirror(directory("mirror"), make_machine(), upstreams, access={"body_timeout": 2}) as process:
        yield process
    assert process.failures() == ""


class Wire:
    """A connection to the mirror, on which anything can be said."""

    def __init__(self, mirror: Mirror, host: str = "open") -> None:
        self.host = mirror.host(host)
        self._socket = socket.create_connection(("127.0.0.1", mirror.port), timeout=60)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: Any) -> None:
        self._socket.close()

    def request(self, method: str, path: str, *fields: str, version: str = "HTTP/1.1") -> None:
        """A head, of which nothing is added but ``Host``."""
        lines = [f"{method} {path} {version}", f"Host: {self.host}", *fields]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._socket.sendall(data)

    def answers(self) -> list[int]:
        """The statuses of all that is answered until the mirror closes the connection.

        A mirror that has refused a body reads on for a while, if the client does not end.
        """
        received = b""
        try:
            while data := self._socket.recv(65_536):
                received += data
                if received.startswith(b"HTTP/1.1 4"):
                    self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        return [int(status) for status in STATUS.findall(received)]

    def answer(self) -> bytes:
        """The next bytes of the mirror."""
        return self._socket.recv(65_536)


@pytest.fixture
def location(mirror: Mirror, upstream: Upstream) -> str:
    """The location of a new upload."""
    begun = mirror.client("open").request("POST", "/v2/a/b/blobs/uploads/", b"")
    assert begun.status == 202
    location: str = begun.headers["Location"].removeprefix(f"http://{mirror.host('open')}")
    return location


MALFORMED = (
    *CHUNKS, b"F" * 20_000, b"5;" + b"a" * 70_000, b"5\r\nhello\r\n0\r\n" + b"X: y\r\n" * 20_000,
    b"7\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n",
)  # fmt: skip


def _smuggled(host: str) -> bytes:
    return f"DELETE /v2/{UNWANTED}/x/manifests/latest HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


@pytest.mark.parametrize("fields", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_lengths(mirror: Mirror, upstream: Upstream, location: str, fields: tuple[bytes, ...]) -> None:
    """A head whose body could be understood in two ways is refused, and nothing of it goes anywhere."""
    with Wire(mirror) as wire:
        wire.request("PATCH", location, *(each.decode("latin-1") for each in fields))
        wire.send(BODY + _smuggled(wire.host))
        assert wire.answers() == [400]
    assert upstream.seen == []


def test_chunks_of_http_1_0(mirror: Mirror, upstream: Upstream, location: str) -> None:
    """HTTP/1.0 has no chunks."""
    with Wire(mirror) as wire:
        wire.request("PATCH", location, "Transfer-Encoding: chunked", version="HTTP/1.0")
        wire.send(BODY + _smuggled(wire.host))
        assert wire.answers() == [400]
    assert upstream.seen == []


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
def test_chunks(mirror: Mirror, upstream: Upstream, location: str, body: bytes) -> None:
    """Chunks that are none end the request: upstream it comes to no end, and nothing comes behind it."""
    with Wire(mirror) as wire:
        wire.request("PATCH", location, "Transfer-Encoding: chunked")
        wire.send(body + _smuggled(wire.host))
        assert wire.answers() == [400]
    wait_until(lambda: all(each.body is None for each in upstream.seen), "it comes to no end")
    assert [each.path for each in upstream.seen if UNWANTED in each.path] == []


def test_right_chunks(mirror: Mirror, upstream: Upstream, location: str) -> None:
    """Extensions and trailers are not for the upstream, which gets the bytes, and little of the head."""
    with Wire(mirror) as wire:
        wire.request(
            "PATCH", location, "Transfer-Encoding: chunked", "Trailer: X-Trailer", "X-Header: y", "Cookie: z",
            "Connection: close, X-Header", "Content-Type: application/octet-stream",
        )  # fmt: skip
        wire.send(b'2;name="value"\r\nhe\r\n03\r\nllo\r\n0\r\nX-Trailer: y\r\n\r\n')
        assert wire.answers() == [202]
    [seen] = upstream.seen
    assert (seen.method, seen.path, seen.body) == ("PATCH", upstream.upload, b"hello")
    assert {"x-header", "x-trailer", "trailer", "cookie"} & set(seen.headers) == set()
    assert seen.headers["content-type"] == "application/octet-stream"


def test_pipelined(mirror: Mirror, upstream: Upstream, location: str) -> None:
    """A request behind a body is answered as one of its own."""
    with Wire(mirror) as wire:
        wire.request("PATCH", location, "Content-Length: 5")
        wire.send(b"hello")
        wire.request("PATCH", location, "Transfer-Encoding: chunked")
        wire.send(BODY)
        wire.request("DELETE", "/v2/a/b/../../_catalog", "Connection: close")
        first, second, third = wire.answers()
        assert (first, second) == (202, 202)
        assert third in (400, 404)
    assert [each.body for each in upstream.seen] == [b"hello", b"hello"]


@pytest.mark.parametrize("coding", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_client_goes_away(mirror: Mirror, upstream: Upstream, location: str, coding: str) -> None:
    """A body that breaks off is never taken as complete by the upstream."""
    with Wire(mirror) as wire:
        wire.request("PATCH", location, coding)
        wire.send((b"186A0\r\n" if "chunked" in coding else b"") + bytes(100_000))
        wire.send(b"\r\n186A0\r\n" if "chunked" in coding else bytes(100))
    wait_until(lambda: len(upstream.seen) == 1, "the upstream's connection is closed")
    assert upstream.seen[0].body is None


def test_client_stops_sending(mirror: Mirror, upstream: Upstream, location: str) -> None:
    """A client that stops in its body gets 408, and its upload is broken off upstream."""
    stalls = (
        ("Content-Length: 1000000", b""),
        ("Content-Length: 1000000", bytes(5_000)),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n"),
        ("Transfer-Encoding: chunked", b"FFFF\r\nhe"),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n"),
    )
    told: list[list[int]] = []

    def stall(coding: str, body: bytes) -> None:
        with Wire(mirror) as wire:
            wire.request("PATCH", location, coding)
            wire.send(body)
            told.append(wire.answers())

    threads = [threading.Thread(target=stall, args=each) for each in stalls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [[408]] * len(stalls)
    wait_until(lambda: len(upstream.seen) == len(stalls), "the upstream's connections are closed")
    assert {each.body for each in upstream.seen} == {None}


@pytest.mark.parametrize("coding", ["Content-Length: 100000000", "Transfer-Encoding: chunked"])
def test_early_answer(mirror: Mirror, upstream: Upstream, location: str, coding: str) -> None:
    """The upstream's refusal reaches a client that has sent a part of its body only."""

    def refuses(exchange: Exchange) -> bool:
        exchange.answer(413)
        exchange.close_connection = True
        return True

    with upstream.meddled_with(refuses), Wire(mirror) as wire:
        wire.request("PATCH", location, coding)
        wire.send(b"5\r\nhello\r\n" if "chunked" in coding else b"hello")
        assert wire.answer().startswith(b"HTTP/1.1 413 ")


def test_continue(mirror: Mirror, upstream: Upstream, location: str) -> None:
    """A client that asks whether to send its body is told so when the upstream is there to take it."""
    with Wire(mirror) as wire:
        wire.request("PATCH", location, "Content-Length: 5", "Expect: 100-continue", "Connection: close")
        assert wire.answer() == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send(b"hello")
        assert wire.answers() == [202]
    assert [each.body for each in upstream.seen] == [b"hello"]


@pytest.mark.parametrize(
    ("host", "path", "status"),
    [
        ("basic", "/v2/a/b/blobs/uploads/x", 405),
        ("open", "/v2/a/b/blobs/uploads/x", 404),
        ("open", "/v2/A/b/blobs/uploads/x", 400),
        ("open", "/v2/_catalog", 405),
        ("", "/v2/docker.io/a/b/blobs/uploads/x", 405),
    ],
)
def test_no_continue(mirror: Mirror, upstream: Upstream, host: str, path: str, status: int) -> None:
    """A body that will be refused in any case is not asked for, and the upstream gets no request."""
    upstream.begin()
    with Wire(mirror, host) as wire:
        wire.request("PATCH", path, "Content-Length: 5", "Expect: 100-continue")
        assert wire.answers() == [status]
    assert upstream.seen == []


def test_forged_locations(mirror: Mirror, upstream: Upstream, location: str) -> None:
    """A location that was not given for this repository, on this host, leads nowhere."""
    path, _, name = location.rpartition("/")
    forged = [
        ("open", f"{path}/{name[:-2]}{'AA' if name[-2:] != 'AA' else 'BB'}"),
        ("open", f"{path}/{'A' if name[0] != 'A' else 'B'}{name[1:]}"),
        ("open", f"{path}/{name.partition('.')[0]}."),
        ("open", location.replace("/a/b/", "/a/c/")),
        ("direct", location),
    ]
    for host, target in forged:
        for method in ("GET", "PATCH", "PUT", "DELETE"):
            digest = f"?digest={sha256(b'')}" if method == "PUT" else ""
            told = mirror.client(host).request(method, target + digest, b"" if method[0] == "P" else None)
            assert told.status == 404
            assert b"BLOB_UPLOAD_UNKNOWN" in told.body
    assert upstream.seen == []


@pytest.mark.parametrize("digest", ["sha256:x%0d%0aX: y", "sha256:" + "0" * 63, "../../x", "%00"])
def test_invalid_digests(mirror: Mirror, upstream: Upstream, location: str, digest: str) -> None:
    """Invalid digests reach no upstream."""
    with Wire(mirror) as wire:
        wire.request(
            "PUT", f"{location}?digest={digest.replace(' ', '%20')}", "Content-Length: 0", "Connection: close"
        )
        assert wire.answers() == [400]
    assert upstream.seen == []
