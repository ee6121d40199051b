"""Held blobs over plain connections: sent by the kernel, between other answers, to clients of all kinds."""

from __future__ import annotations

import http.client
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import pytest

from .conftest import MakeChain
from .parts.chain import Chain
from .parts.images import artifact
from .parts.kept import blob_file
from .parts.mirror import Mirror
from .parts.process import wait_until
from .parts.stream import fetched

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
NAME = "public/sent"
LARGE = artifact("large and sent", size=16 * MIB).layers[0]
PATH = f"/v2/docker.io/{NAME}/blobs/{LARGE.digest}"


@pytest.fixture(scope="module")
def cached(chains: MakeChain) -> Iterator[Chain]:
    """A mirror that holds one large blob whole, and nobody reads it."""
    with chains() as chain:
        chain.registry.push(NAME, artifact("large and sent", size=16 * MIB), "latest")
        assert fetched(chain.mirror, NAME, LARGE.digest) == LARGE.digest
        file = blob_file(chain.mirror.cache, LARGE.digest)
        wait_until(file.exists, "the blob is held")
        wait_until(lambda: not chain.mirror.has_open(file), "nobody reads it")
        yield chain


class Answers(BytesIO):
    """The bytes of a connection, from which ``http.client`` reads one response after the other."""

    def makefile(self, _: str) -> Answers:
        """Return itself, as a socket returns its file."""
        return self

    def close(self) -> None:
        """Stay open for another response."""

    def next(self) -> tuple[int, bytes]:
        """Status and body of the next one."""
        response = http.client.HTTPResponse(self)  # type: ignore[arg-type]
        response.begin()
        return response.status, response.read()


def test_pipelined(cached: Chain) -> None:
    """Behind a large blob come the answers to what was asked meanwhile, however long the request was."""
    path = f"/v2/docker.io/{NAME}/manifests/latest"
    part = ("Connection: close", "Range: bytes=1000000-9000000")
    with _connected(cached.mirror) as connection:
        connection.sendall(
            _asked(cached.mirror, PATH) + _asked(cached.mirror, path, f"X-Long: {'x' * 40_000}")
        )
        connection.sendall(_asked(cached.mirror, PATH) + _asked(cached.mirror, PATH, *part))
        answers = Answers(_rest(connection))
    assert answers.next() == (200, LARGE.data)
    status, manifest = answers.next()
    assert (status, LARGE.digest.encode() in manifest) == (200, True)
    assert answers.next() == (200, LARGE.data)
    assert answers.next() == (206, LARGE.data[1_000_000:9_000_001])
    assert answers.read() == b""


def test_reset(cached: Chain) -> None:
    """A client that resets its connection in the middle gives the file back, and costs no error."""
    file, log = blob_file(cached.mirror.cache, LARGE.digest), len(cached.mirror.read_log())
    with _connected(cached.mirror) as connection:
        connection.sendall(_asked(cached.mirror, PATH))
        connection.recv(1000)
        assert cached.mirror.has_open(file)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: not cached.mirror.has_open(file), "the file is given back")
    wait_until(lambda: " cut off" in cached.mirror.read_log()[log:], "the log says that it was cut off")
    told = cached.mirror.read_log()[log:]
    assert "#error" not in told
    assert "Unhandled" not in told


def test_slow(cached: Chain) -> None:
    """A client that does not read for a while keeps nobody waiting, and gets everything."""
    with _connected(cached.mirror) as connection:
        connection.sendall(_asked(cached.mirror, PATH, "Connection: close"))
        begun = connection.recv(1000)
        assert fetched(cached.mirror, NAME, LARGE.digest) == LARGE.digest
        assert Answers(begun + _rest(connection)).next() == (200, LARGE.data)


@contextmanager
def _connected(mirror: Mirror) -> Iterator[socket.socket]:
    """A connection that takes little at a time."""
    with socket.socket() as connection:
        connection.settimeout(60)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.connect(("127.0.0.1", mirror.port))
        yield connection


def _asked(mirror: Mirror, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {mirror.host()}", *headers, "", ""]).encode()


def _rest(connection: socket.socket) -> bytes:
    received = bytearray()
    while data := connection.recv(65536):
        received += data
    return bytes(received)
