"""Machines that fail: processes killed, descriptors used up, connections without number."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

import dockmirror
from tests.integration.conftest import MakeMachine
from tests.integration.parts.images import Image, artifact
from tests.integration.parts.kept import wrong_blobs
from tests.integration.parts.mirror import Mirror
from tests.integration.parts.process import listens, wait_until
from tests.integration.parts.registry import Registry

from .load import Load, fetch, load
from .rows import Record, hardship

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
KILLS = 2
RESTARTS = 2
IDLE = 2000
PACKAGE = str(Path(dockmirror.__file__).parent)
TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?:\t.*\n)+")
REPOSITORY = "hardship/machine"


@pytest.fixture(scope="module")
def images(open_registry: Registry) -> list[Image]:
    """Small and larger ones, which lie in :data:`REPOSITORY`."""
    pushed = [artifact(f"machine {number}", size=(number % 4 * 4 + 1) * MIB) for number in range(12)]
    for number, each in enumerate(pushed):
        open_registry.push(REPOSITORY, each, f"t{number}")
    return pushed


@pytest.fixture
def mirror(tmp_path: Path, make_machine: MakeMachine, open_registry: Registry) -> Mirror:
    """A mirror of two processes, which is not started yet; its cache is too small for what is pulled."""
    upstreams = {"open": {"url": open_registry.url}}
    return Mirror(tmp_path, make_machine(), upstreams, workers=2, grace=20, cache_size="40MB")


@hardship(f"machine: {KILLS} workers of two killed, one after the other")
def test_workers_killed(mirror: Mirror, images: list[Image], came: Record) -> None:
    """One process after another is killed under load: what a client tries again succeeds."""
    with mirror, load(mirror, REPOSITORY, images) as clients:
        for count in range(1, KILLS + 1):
            wait_until(lambda: clients.right >= 20 * count, "clients are served")  # noqa: B023
            before = _workers(mirror)
            os.kill(before[count % 2], signal.SIGKILL)
            wait_until(lambda: len(set(_workers(mirror)) - set(before)) == 1, "another takes its place")  # noqa: B023
    _survived(mirror, clients)
    came(clients)


@hardship("machine: 64 file descriptors for 108 clients")
def test_descriptors(mirror: Mirror, images: list[Image], came: Record) -> None:
    """A process that can open nothing more goes on when it can again.

    Twisted tells of a spare descriptor that it cannot open with a traceback of its own.
    """
    mirror.configure(workers=1, access={"connections": 500})
    mirror.command[:0] = ["sh", "-c", 'ulimit -n 64 && exec "$@"', "sh"]
    with mirror:
        with load(mirror, REPOSITORY, images, clients=48) as clients:
            with _idle(mirror, 60, waiting=False):
                wait_until(lambda: clients.again > 20, "clients are left out")
            wait_until(lambda: clients.right > 100, "clients are served again")
        fetch(mirror, REPOSITORY, images[0], last := Load(), tries=1)
        assert last.right == 1
    assert "Too many open files" in mirror.read_log()
    assert clients.wrong == []
    assert [each for each in TRACEBACK.findall(mirror.read_log()) if PACKAGE in each] == []
    assert wrong_blobs(mirror.cache) == []
    came(clients)


@hardship(f"machine: {IDLE:,} idle connections, and a pull beside them")
def test_idle_connections(mirror: Mirror, images: list[Image], came: Record) -> None:
    """Are in nobody's way."""
    with mirror, _idle(mirror, IDLE):
        clients = Load()
        for each in images:
            fetch(mirror, REPOSITORY, each, clients, tries=1)
    _survived(mirror, clients)
    assert clients.right == len(images)
    came(clients)


@hardship(f"machine: {RESTARTS} restarts with a grace period, under load")
def test_restarts(mirror: Mirror, images: list[Image], came: Record) -> None:
    """Under load: what runs is finished first, and what comes too early is tried again."""
    with mirror, load(mirror, REPOSITORY, images) as clients:
        for count in range(1, RESTARTS + 1):
            wait_until(lambda: clients.right >= 20 * count, "clients are served")  # noqa: B023
            mirror.stop(seconds=25)
            assert not listens("127.0.0.1", mirror.port)
            mirror.start()
    _survived(mirror, clients)
    assert clients.cut == 0
    came(clients)


def _survived(mirror: Mirror, clients: Load) -> None:
    assert clients.wrong == clients.lost == []
    assert mirror.failures() == ""
    assert wrong_blobs(mirror.cache) == []


def _workers(mirror: Mirror) -> list[int]:
    children = Path(f"/proc/{mirror.pid}/task/{mirror.pid}/children").read_text().split()
    return [int(each) for each in children]


@contextmanager
def _idle(mirror: Mirror, count: int, *, waiting: bool = True) -> Iterator[None]:
    """So many connections on which nothing is said.

    :param waiting: whether each must be made before the next; the kernel leaves out those of a process that
        takes none at present, and goes on trying.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * count + 1000)), hard))
    try:
        with ExitStack() as stack:
            for _ in range(count):
                connection = stack.enter_context(socket.socket())
                connection.settimeout(10 if waiting else 0)
                with suppress(BlockingIOError):
                    connection.connect(("127.0.0.1", mirror.port))
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
