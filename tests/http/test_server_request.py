"""Bodies of responses over real sockets: files are sent by the kernel."""

# mypy: allow-untyped-decorators

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from pytest_twisted import (  # type: ignore[import-untyped, unused-ignore]
    async_yield_fixture,
    ensureDeferred,
)
from twisted.internet import reactor as twisted_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.internet.threads import deferToThread
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.resource import Resource
from zope.interface import implementer
from zope.interface.verify import verifyObject

from dockmirror.http.server import HttpSite
from dockmirror.http.server_request import ServerRequest
from dockmirror.interfaces import Answer, IBody, IFileConsumer
from dockmirror.oci.digest import Descriptor
from dockmirror.oci.header_fields import ContentRange
from dockmirror.store.file_body import FileBody, FileReader
from dockmirror.web.access_log import find_reason
from dockmirror.web.respond import respond
from tests.listening import AUTHORITY, Secured, soon
from tests.stacks import logged
from tests.store.threads import inline

reactor: Any = twisted_reactor
Segments = Sequence[bytes | ContentRange]
SIZE = 12 * 1024 * 1024 + 7
DATA = os.urandom(1024 * 1024) * 13
WHOLE = ContentRange(0, SIZE - 1, SIZE)
PARTS: Segments = [b"<", ContentRange(5, SIZE // 2, SIZE), b"|", ContentRange(0, SIZE // 3, SIZE), b">"]
HEAD = b"Host: h\r\n\r\n"
UNREAD = b"GET /whole HTTP/1.1\r\n" + HEAD


@implementer(IBody)
class RecordedBody:
    """A body that records its consumers."""

    def __init__(self, body: IBody, consumers: list[IConsumer]) -> None:
        self.descriptor = body.descriptor
        self.discard = body.discard
        self._body = body
        self._consumers = consumers

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        self._consumers.append(consumer)
        return self._body.deliver(consumer)


class Files(Resource):
    """A resource that sends a file, or parts of it, or the length of the request's target."""

    isLeaf = True

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.consumers: list[IConsumer] = []
        self._path = path

    def render_GET(self, request: ServerRequest) -> int:
        segments = {b"/parts": PARTS, b"/small": [b"%d" % len(request.uri)]}.get(request.path, [WHOLE])
        size = None if request.path == b"/unknown" else len(cut(segments))
        file = FileReader(os.open(self._path, os.O_RDONLY), inline)
        body = FileBody(file, Descriptor("a/b", None, size), segments, reactor)

        async def answer() -> Answer:
            return Answer(RecordedBody(body, self.consumers))

        return respond(request, answer())


def cut(segments: Segments) -> bytes:
    """Return the bytes of these pieces."""
    return b"".join(
        each if isinstance(each, bytes) else DATA[each.first : each.last + 1] for each in segments
    )


class Served:
    """A site on a port of the loopback interface."""

    def __init__(self, path: Path, wrap: Callable[[HttpSite], Any] = lambda site: site) -> None:
        self.path = path
        self.files = Files(path)
        self.ended: list[ServerRequest] = []
        self.site = HttpSite(self.files, reactor, log=self.ended.append)
        self._listening = reactor.listenTCP(0, wrap(self.site), interface="127.0.0.1")
        self.port: int = self._listening.getHost().port

    def run(self, client: Callable[[int], Any]) -> Awaitable[Any]:
        """Return a blocking client's result."""
        outcome: Awaitable[Any] = deferToThread(client, self.port)
        return outcome

    @property
    def open_files(self) -> int:
        """Return how often the file is open."""
        links = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
        return links.count(str(self.path))

    async def stop(self) -> None:
        """Wait until every connection is closed, and the file with it."""
        await self._listening.stopListening()
        await self.site.connections.drain(5)
        assert self.open_files == 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the file's path."""
    path = tmp_path / "file"
    path.write_bytes(DATA[:SIZE])
    return path


@async_yield_fixture
async def served(path: Path) -> AsyncIterator[Served]:
    """Return its server."""
    served = Served(path)
    yield served
    await served.stop()


@contextmanager
def connected(port: int, receive: int | None = None) -> Iterator[socket.socket]:
    """Return a client's connection with a receive buffer of that size."""
    with socket.socket() as client:
        client.settimeout(30)
        if receive is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        client.connect(("127.0.0.1", port))
        yield client


def read(stream: BinaryIO) -> bytes:
    """Return the next body."""
    length = 0
    while line := stream.readline().strip():
        if line.lower().startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return stream.read(length)


def fetch(port: int, *paths: bytes) -> list[bytes]:
    """Return the bodies of requests on one connection, which are pipelined."""
    with connected(port) as connection, connection.makefile("rb") as stream:
        connection.sendall(b"".join(b"GET %s HTTP/1.1\r\n" % path + HEAD for path in paths))
        return [read(stream) for _ in paths]


def rest(connection: socket.socket) -> bytes:
    """Return everything until the connection is closed or reset."""
    received = bytearray()
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return bytes(received)


@ensureDeferred
async def test_a_whole_file_is_sent_and_pipelined_requests_wait_for_it(served: Served) -> None:
    """So does one that is larger than the read-ahead.  All bytes are counted as sent."""
    long = b"/small?" + b"x" * 40_000
    length = b"%d" % len(long)
    bodies = await served.run(lambda port: fetch(port, b"/whole", long, b"/whole", long))
    assert bodies == [DATA[:SIZE], length, DATA[:SIZE], length]
    assert [request.sentLength for request in served.ended] == [SIZE, len(length), SIZE, len(length)]
    assert not any(request.is_cut_off for request in served.ended)
    assert verifyObject(IFileConsumer, served.files.consumers[0])


@ensureDeferred
async def test_bytes_between_parts_of_a_file_keep_their_place(served: Served) -> None:
    assert await served.run(lambda port: fetch(port, b"/parts")) == [cut(PARTS)]
    assert served.ended[0].sentLength == len(cut(PARTS))


@pytest.mark.parametrize("version", [b"HTTP/1.0\r\n", b"HTTP/1.1\r\nConnection: close\r\n"])
@ensureDeferred
async def test_a_connection_to_be_closed_closes_after_the_last_byte(served: Served, version: bytes) -> None:
    def client(port: int) -> bytes:
        with connected(port) as connection:
            connection.sendall(b"GET /whole " + version + HEAD)
            return rest(connection)

    assert (await served.run(client)).endswith(b"\r\n\r\n" + DATA[:SIZE])


@ensureDeferred
async def test_a_drain_waits_until_the_file_is_sent(served: Served) -> None:
    drained: list[int] = []

    def client(port: int) -> bytes:
        with connected(port, 4096) as connection:
            connection.sendall(UNREAD)
            connection.recv(1)
            reactor.callFromThread(lambda: served.site.connections.drain(30).addCallback(drained.append))
            return rest(connection)

    assert (await served.run(client)).endswith(DATA[:SIZE])
    assert await soon(lambda: drained == [0])


@ensureDeferred
async def test_a_client_that_does_not_read_delays_nobody(served: Served) -> None:
    """It gets the rest when it reads on."""
    with connected(served.port, 4096) as unread, unread.makefile("rb") as stream:
        unread.sendall(UNREAD)
        assert await soon(lambda: served.open_files == 1)
        assert await served.run(lambda port: fetch(port, b"/whole")) == [DATA[:SIZE]]
        assert (served.open_files, len(served.ended)) == (1, 1)
        assert await served.run(lambda _: read(stream)) == DATA[:SIZE]


@pytest.mark.parametrize("reset", [True, False])
@ensureDeferred
async def test_a_reset_or_the_end_of_the_grace_frees_file_and_connection(served: Served, reset: bool) -> None:
    with connected(served.port, 4096) as client:
        client.sendall(UNREAD)
        assert await soon(lambda: served.open_files == 1)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            assert await served.site.connections.drain(0) == 1
    assert await soon(lambda: (served.open_files, served.site.connections.open_count) == (0, 0))
    assert served.ended[0].is_cut_off
    assert served.ended[0].sentLength < SIZE


@ensureDeferred
async def test_a_response_that_the_mirror_cuts_off_says_so_once(served: Served) -> None:
    """The access log has the reason, and no other line blames the client."""
    with connected(served.port, 4096) as client, logged() as lines:
        client.sendall(UNREAD)
        assert await soon(lambda: served.open_files == 1)
        assert await served.site.connections.drain(0) == 1
        assert await soon(lambda: served.open_files == 0)
    assert find_reason(served.ended[0]) == "the mirror was stopped before the end of the response"
    assert not any("cut off" in line for line in lines)


@ensureDeferred
async def test_a_truncated_file_is_cut_off(served: Served) -> None:
    """The response is never completed."""

    def client(port: int) -> int:
        with connected(port, 4096) as connection:
            connection.sendall(UNREAD)
            head = connection.recv(1)
            os.truncate(served.path, SIZE - 1)
            return len(head + rest(connection))

    assert await served.run(client) < SIZE
    assert await soon(lambda: served.site.connections.open_count == 0)
    assert served.ended[0].is_cut_off


@ensureDeferred
async def test_a_chunked_body_is_written(served: Served) -> None:
    def client(port: int) -> bytes:
        with connected(port) as connection:
            connection.sendall(b"GET /unknown HTTP/1.1\r\n" + HEAD)
            response = HTTPResponse(connection)
            response.begin()
            return response.read()

    assert await served.run(client) == DATA[:SIZE]
    assert not IFileConsumer.providedBy(served.files.consumers[0])


def wrapped(site: HttpSite) -> Any:
    """Return a transport that only claims to be a socket."""
    factory = WrappingFactory(site)
    factory.protocol = ProtocolWrapper
    return factory


def secured(site: HttpSite) -> Any:
    """Return a TLS transport."""
    return TLSMemoryBIOFactory(Secured(AUTHORITY.issue("h")), False, site)


@pytest.mark.parametrize("wrap", [wrapped, secured])
@ensureDeferred
async def test_other_transports_are_written_to(path: Path, wrap: Callable[[HttpSite], Any]) -> None:
    served = Served(path, wrap)

    def client(port: int) -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            connected(port) as plain,
            context.wrap_socket(plain) if wrap is secured else plain as connection,
            connection.makefile("rb") as stream,
        ):
            connection.sendall(UNREAD)
            return read(stream)

    assert await served.run(client) == DATA[:SIZE]
    assert not IFileConsumer.providedBy(served.files.consumers[0])
    await served.stop()


@ensureDeferred
async def test_the_kernel_sends_files_to_unix_sockets(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies in front use them."""
    monkeypatch.chdir(tmp_path)  # the whole path may be too long for a socket
    served = Served(path)
    listening = reactor.listenUNIX("socket", served.site)

    def client(_: int) -> list[bytes]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect("socket")
            asked = [b"GET %s HTTP/1.1\r\n" % name + HEAD for name in (b"/whole", b"/small", b"/whole")]
            connection.sendall(b"".join(asked))
            with connection.makefile("rb") as stream:
                return [read(stream) for _ in asked]

    assert await served.run(client) == [DATA[:SIZE], b"6", DATA[:SIZE]]
    assert all(map(IFileConsumer.providedBy, served.files.consumers))
    await listening.stopListening()
    await served.stop()
