"""Clients without number, and few descriptors for them."""

from __future__ import annotations

from contextlib import closing
from http.client import HTTPConnection

import pytest

from tests.integration.parts.images import Image
from tests.integration.parts.mirror import Mirror
from tests.integration.parts.process import wait_until
from tests.long import LONG

from .crowd import ELSEWHERE, idle, read_slowly, read_to_the_end, readers, still_open
from .load import REPOSITORY, Load, fetch, load, survived
from .rows import Record, hardship

pytestmark = pytest.mark.integration

IDLE, SLOW, RATE = 10_000, 512, 10_000
SECONDS = 120 if LONG else 6
FULL = "Too many open files"


@hardship(f"machine: {IDLE:,} idle connections, and a pull beside them")
def test_idle_connections(mirror: Mirror, images: list[Image], came: Record) -> None:
    """Idle connections hinder no other client."""
    mirror.configure(workers=4)  # the system divides connections unevenly; no process may get too many
    with mirror, idle(mirror, IDLE) as connections:
        clients = Load()
        for each in images:
            fetch(mirror, REPOSITORY, each, clients, tries=1)
        kept = still_open(connections)
    survived(mirror, clients)
    assert clients.right == len(images)
    came(f"{kept:,} of them open; {clients}")


@hardship(f"machine: {SLOW} clients that read {RATE // 1000} KB a second")
def test_slow(mirror: Mirror, images: list[Image], came: Record) -> None:
    """Slow clients get every byte, use little memory, and hinder no other client."""
    large = images[2]  # more than lies in sockets
    layer, clients = large.layers[0], Load()
    mirror.configure(workers=1)
    with mirror:
        fetch(mirror, REPOSITORY, large, clients, tries=1)
        before = mirror.rss()
        path = f"/v2/{REPOSITORY}/blobs/{layer.digest}"
        with readers(mirror, "open", path, SLOW) as everyone:
            read_slowly(everyone, RATE, SECONDS / 2)
            for each in images:
                fetch(mirror, REPOSITORY, each, clients, tries=1)
            read_slowly(everyone, RATE, SECONDS / 2)
            grown = (mirror.rss() - before) // 1_000_000
            pace = sum(each.count for each in everyone) // SLOW // 1000
            read_to_the_end(everyone)
        right = sum(each.digest.hexdigest() == layer.digest.removeprefix("sha256:") for each in everyone)
    survived(mirror, clients)
    assert (right, clients.again) == (SLOW, 0)
    assert grown < 100
    came(f"{right} right after {pace} KB in {SECONDS} s, {grown} MB of memory; beside them {clients}")


@hardship("machine: 128 file descriptors for 108 clients")
def test_few_descriptors(mirror: Mirror, images: list[Image], came: Record) -> None:
    """Connections beyond the limit are closed at once; the others never meet with it."""
    mirror.configure(workers=1)
    mirror.command[:0] = ["sh", "-c", 'ulimit -n 128 && exec "$@"', "sh"]
    with mirror:
        with load(mirror, REPOSITORY, images, clients=48, tries=1000) as clients, idle(mirror, 60):
            wait_until(lambda: clients.right > 100, "clients are served", seconds=300)
        assert FULL not in mirror.read_log()
    survived(mirror, clients)
    came(clients)


@hardship("machine: 100 file descriptors for 108 clients, and it is told to count on 500")
def test_no_descriptors(mirror: Mirror, images: list[Image], came: Record) -> None:
    """It counts on those that there are, and says so once: nothing ever finds that there is none left."""
    mirror.configure(workers=1, access={"connections": 500})
    mirror.command[:0] = ["sh", "-c", 'ulimit -n 100 && exec "$@"', "sh"]
    with mirror:
        with load(mirror, REPOSITORY, images, clients=48, tries=1000) as clients:
            with idle(mirror, 60, waiting=False):
                wait_until(lambda: clients.again > 20, "clients are left out")
            wait_until(lambda: clients.right > 100, "clients are served again", seconds=300)
        assert FULL not in mirror.read_log()
        assert mirror.read_log().count("there is room for 12: the limit of open files is too low") == 1
    survived(mirror, clients)
    came(clients)


@hardship("machine: 220 hanging requests of one network, and 160 file descriptors")
def test_one_network(mirror: Mirror, images: list[Image], came: Record) -> None:
    """They take their share of the connections; others are served, and health is answered to them as well."""
    mirror.configure(workers=1)
    mirror.command[:0] = ["sh", "-c", 'ulimit -n 160 && exec "$@"', "sh"]
    clients = Load()
    with mirror:
        with idle(mirror, 220) as connections:
            for each in images:
                fetch(mirror, REPOSITORY, each, clients, tries=1)
            healthy = [status(mirror, source, "/healthz") for source in ("127.0.0.1", ELSEWHERE)]
            refused = status(mirror, ELSEWHERE, "/v2/")
            kept = still_open(connections)
        assert FULL not in mirror.read_log()
    survived(mirror, clients)
    assert (healthy, refused) == ([200, 200], 429)
    assert (clients.right, clients.again) == (len(images), 0)
    came(f"{kept} of them open; health 200 and 200; {clients}")


def status(mirror: Mirror, source: str, path: str) -> int:
    """Return the status of a request from an address of this machine."""
    connection = HTTPConnection("127.0.0.1", mirror.port, timeout=10, source_address=(source, 0))
    with closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status
