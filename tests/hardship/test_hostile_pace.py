"""Clients that are slow on purpose: none holds a connection longer than the settings say."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.conftest import MakeDirectory, MakeMachine
from tests.integration.parts.images import Image, artifact
from tests.integration.parts.mirror import Mirror, opened_names
from tests.integration.parts.process import wait_until
from tests.integration.parts.registry import Registry

from .grammar import statuses
from .raw import sent
from .rows import Record, hardship

pytestmark = pytest.mark.integration

TIMEOUTS = {"head_timeout": 1, "body_timeout": 1, "idle_timeout": 1, "stall_timeout": 2}
SLACK = 8
"""Seconds by which a busy machine may be late; the closing of a connection has 2, and 5 for unread bodies."""
CLIENTS = 200
MIB = 1024 * 1024
SIZE = 32 * MIB


@pytest.fixture(scope="module")
def image(open_registry: Registry) -> Image:
    """Whose layer no two buffers of a kernel hold."""
    pushed = artifact("slow readers", size=SIZE)
    open_registry.push("hardship/slow", pushed, "latest")
    return pushed


@pytest.fixture(scope="module")
def mirror(directory: MakeDirectory, make_machine: MakeMachine, open_registry: Registry) -> Iterator[Mirror]:
    """A mirror that is not patient."""
    upstreams = {"open": {"url": open_registry.url}}
    with Mirror(directory("mirror"), make_machine(), upstreams, access=TIMEOUTS) as process:
        yield process
    assert process.failures() == ""


def _dripped(data: bytes) -> Iterable[bytes]:
    return (bytes([byte]) for byte in data)


GET = "GET /v2/ HTTP/1.1\r\nHost: {host}\r\n"
FORM = (
    "POST /v2/auth HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    "Content-Length: 10000\r\n\r\n"
)
UNREAD = "PUT /v2/a/manifests/b HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n\r\n"
CHUNKED = FORM.replace("Content-Length: 10000", "Transfer-Encoding: chunked")


SLOW: tuple[tuple[str, str, str, int, list[int]], ...] = (
    ("nothing at all", "", "", 1, []),
    ("half a head, and no more", GET, "", 1, [408]),
    ("a head of a byte in 0.2 s", "", GET, 1, [408]),
    ("a field without an end", GET + "A: ", "b" * 1000, 1, [408]),
    ("a second head that does not end", GET + "\r\nGET", " " * 1000, 1, [200, 408]),
    ("a form that does not come", FORM, "", 1, [408]),
    ("a form of a byte in 0.2 s", FORM, "a" * 1000, 1, [408]),
    ("pieces that do not end", CHUNKED + "5\r\n", "", 1, [408]),
    ("a body that nobody reads", UNREAD, "a" * 1000, 6, [405]),
    ("nothing after a response", GET + "\r\n", "", 1, [200]),
    ("empty lines", "", "\r\n" * 500, 1, [408]),
)


Outcomes = dict[str, tuple[bytes, float]]


@pytest.fixture(scope="module")
def outcomes(mirror: Mirror) -> Outcomes:
    """The bytes that each slow sender receives, and the seconds until it is closed; all send at once."""
    host = mirror.host("open")

    def send(head: str, dripped: str, within: int, *_: object) -> tuple[bytes, float]:
        pieces = [head.format(host=host).encode(), *_dripped(dripped.encode())]
        return sent(mirror.port, filter(None, pieces), within + SLACK, pause=0.2)

    names, rows = [name for name, *_ in SLOW], [row[1:] for row in SLOW]
    with ThreadPoolExecutor(len(SLOW)) as pool:
        return dict(zip(names, pool.map(lambda row: send(*row), rows), strict=True))


@pytest.mark.parametrize(
    ("name", "within", "gets"),
    [pytest.param(name, *row, id=name, marks=hardship(f"hostile: {name}")) for name, _, _, *row in SLOW],
)
def test_slow_senders(outcomes: Outcomes, came: Record, name: str, within: int, gets: list[int]) -> None:
    """A slow sender is answered, or not, and closed in time: a byte now and then extends no timeout."""
    received, seconds = outcomes[name]
    came(f"{', '.join(map(str, gets)) or 'nothing'}; closed after {seconds:.1f} s")
    assert statuses(received) == gets
    assert seconds >= min(within, 1) - 0.1


@hardship(f"hostile: {CLIENTS} slow clients, and a pull beside them")
def test_many_slow_senders(mirror: Mirror, image: Image, came: Record) -> None:
    """Hundreds of them hold up nobody: an image is pulled meanwhile, and all of them are gone in time."""
    begun = GET.format(host=mirror.host("open")).encode()

    def slow(_: int) -> float:
        return sent(mirror.port, [begun, *_dripped(b"A: " + b"b" * 100)], 1 + SLACK, pause=0.3)[1]

    with ThreadPoolExecutor(CLIENTS) as pool:
        waiting = [pool.submit(slow, number) for number in range(CLIENTS)]
        assert mirror.client("open").manifest("hardship/slow", "latest").body == image.manifest.data
        last = max(each.result() for each in waiting)
    came(f"the right bytes; the last is closed after {last:.1f} s")


@hardship("hostile: nothing is taken of a blob")
def test_slow_reader(mirror: Mirror, image: Image, came: Record) -> None:
    """A client that takes nothing of a blob is left; one that is slow gets all of it."""
    layer = image.layers[0]
    asked = f"GET /v2/hardship/slow/blobs/{layer.digest} HTTP/1.1\r\nHost: {mirror.host('open')}\r\n\r\n"
    assert mirror.client("open").blob("hardship/slow", layer.digest).body == layer.data
    with _asking(mirror, asked) as idle, _asking(mirror, asked) as slow:
        received = 0
        for _ in range(2 * TIMEOUTS["stall_timeout"]):
            received += _read_in_a_second(slow, 2 * MIB)
        assert 0 < received < SIZE
        while received < SIZE and (piece := slow.recv(1024 * 1024)):
            received += len(piece)
        assert received >= SIZE
        wait_until(lambda: _connections(mirror) <= 1, "the idle one is closed", 2 + SLACK)
        came("cut off after `stall_timeout`; one that is slow gets all of it")
        assert _received(idle) < SIZE


def _asking(mirror: Mirror, asked: str) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", mirror.port))
    connection.sendall(asked.encode())
    return connection


def _read_in_a_second(connection: socket.socket, count: int) -> int:
    """Read at least so many bytes at once, and wait for what is left of a second; return how many came.

    The mirror learns of what is read when a good part of the kernel's buffer is free again; a few bytes at a
    time would look to it like none on a busy machine.
    """
    end, received = time.monotonic() + 1, 0
    while received < count:
        received += len(connection.recv(64 * 1024))
    time.sleep(max(0.0, end - time.monotonic()))
    return received


def _received(connection: socket.socket) -> int:
    count = 0
    with suppress(ConnectionError):
        while piece := connection.recv(1024 * 1024):
            count += len(piece)
    return count


def _connections(mirror: Mirror) -> int:
    """The number of clients' connections that the mirror has open."""
    inodes = {
        name.removeprefix("socket:[").removesuffix("]") for pid in mirror.pids() for name in opened_names(pid)
    }
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    port = f":{mirror.port:04X}"
    rows = [line.split() for line in lines]
    return sum(1 for row in rows if row[1].endswith(port) and row[3] == "01" and row[9] in inodes)
