"""Stores that are full, closed, shared, or meddled with while they are in use."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.integration.conftest import MakeDirectory, MakeMachine
from tests.integration.parts.disk import SmallDisk
from tests.integration.parts.images import Image
from tests.integration.parts.kept import blobs, files, wrong_blobs
from tests.integration.parts.mirror import Mirror
from tests.integration.parts.process import wait_until
from tests.integration.parts.programs import require
from tests.integration.parts.registry import Registry
from tests.long import LONG

from .load import REPOSITORY, Load, fetch, load, survived
from .rows import Record, hardship

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
BODIES = 1000 if LONG else 30
"""The number of bodies in each test."""


@hardship("machine: the disk is full, in the middle of fills")
def test_full(directory: MakeDirectory, open_registry: Registry, images: list[Image], came: Record) -> None:
    """Clients are given what it cannot take; of that nothing wrong is left."""
    require("unshare")
    small = SmallDisk(directory("small"), 12 * MIB)
    small.prepare()
    upstreams = {"open": {"url": open_registry.url}}
    with Mirror(directory("full"), small, upstreams, cache=str(small.disk)) as mirror:
        with load(mirror, REPOSITORY, images) as clients:
            wait_until(lambda: clients.right >= BODIES, "clients are served", seconds=300)
        disk = small.seen_by(mirror.pid)
        assert wrong_blobs(disk) == []
        assert "the cache keeps no new blobs" in mirror.read_log()
        used = sum(each.stat().st_size for each in blobs(disk)) // MIB
    assert clients.wrong == clients.lost == []
    assert mirror.failures() == ""
    came(f"{clients}; {used} of 12 MiB kept")


@hardship("machine: the store is read-only, and then it is not")
def test_read_only(mirror: Mirror, images: list[Image], came: Record) -> None:
    """Cached blobs are served, others passed on, and stored when that is possible again."""
    mirror.configure(workers=1)
    with mirror:
        fetch(mirror, REPOSITORY, images[0], Load(), tries=1)
        wait_until(lambda: len(blobs(mirror.cache)) == 1, "it is kept")
        with _read_only(mirror):
            with load(mirror, REPOSITORY, images) as clients:
                wait_until(lambda: clients.right >= BODIES, "clients are served", seconds=300)
            assert len(blobs(mirror.cache)) == 1
        fetch(mirror, REPOSITORY, images[4], clients, tries=1)
        wait_until(lambda: _keeps_again(mirror, images[4], clients), "what comes is kept again", seconds=90)
    survived(mirror, clients)
    came(clients)


@hardship("machine: files deleted, moved, replaced and cut short, under a running mirror")
def test_meddled_with(mirror: Mirror, images: list[Image], came: Record) -> None:
    """Contents, links, notes, what is on its way in, and whole directories; only contents are cut short."""
    with mirror:
        with load(mirror, REPOSITORY, images) as clients, _gremlin(mirror.cache) as harm:
            wait_until(lambda: clients.right >= 2 * BODIES and len(harm) >= 300, "it is borne", seconds=300)
        for each in images:
            fetch(mirror, REPOSITORY, each, clients)
    assert clients.wrong == clients.lost == []
    assert mirror.failures() == ""
    came(f"{len(harm)} times; {clients}")


@hardship("machine: contents written to in place, under a running mirror")
def test_written_to(mirror: Mirror, images: list[Image], came: Record) -> None:
    """A blob that is changed on the disk is served to no client."""
    clients, written = Load(), 0
    with mirror:
        while written < len(images):
            for each in images:
                fetch(mirror, REPOSITORY, each, clients)
            for file in blobs(mirror.cache):
                _write_to(file)
                written += 1
        for each in images:
            fetch(mirror, REPOSITORY, each, clients)
    survived(mirror, clients)
    assert clients.again == 0
    came(f"{written} times; {clients}")


@hardship("machine: two mirrors on one directory, one of them killed again and again")
def test_two(
    mirror: Mirror, directory: MakeDirectory, make_machine: MakeMachine, open_registry: Registry,
    images: list[Image], came: Record,
) -> None:  # fmt: skip
    """Two mirrors fetch, serve and evict in one directory, and one continues downloads of the other."""
    upstreams = {"open": {"url": open_registry.url}}
    mirror.configure(workers=1)
    shared = {"cache": str(mirror.cache), "cache_size": "20MB"}
    kills = 20 if LONG else 4
    with (
        mirror,
        Mirror(directory("other"), make_machine(), upstreams, **shared) as other,
        load(mirror, REPOSITORY, images, clients=4) as clients,
        load(other, REPOSITORY, images, clients=4, tries=10_000) as others,
    ):
        for count in range(1, kills + 1):
            wait_until(lambda: others.right >= 5 * count, "the other serves", seconds=120)  # noqa: B023
            other.kill()
            other.start()
        wait_until(lambda: clients.right >= BODIES, "clients are served", seconds=300)
    survived(mirror, clients)
    survived(other, others)
    assert clients.again == 0
    came(f"{kills} kills; of the one {clients}; of the other {others}")


@contextmanager
def _read_only(mirror: Mirror) -> Iterator[None]:
    """Nothing can be written there, as the mirror sees it."""
    place, enter = str(mirror.cache), ["nsenter", "--mount", "--target", str(mirror.pid)]
    subprocess.run([*enter, "mount", "--bind", place, place], check=True)  # noqa: S603
    remount = [*enter, "mount", "-o", "remount,bind,ro", place]
    try:
        # it is refused while the mirror has a file open for writing there
        wait_until(lambda: subprocess.run(remount, check=False).returncode == 0, "it is read-only")  # noqa: S603
        yield
    finally:
        subprocess.run([*enter, "umount", "--lazy", place], check=True)  # noqa: S603


def _keeps_again(mirror: Mirror, image: Image, clients: Load) -> bool:
    fetch(mirror, REPOSITORY, image, clients, tries=1)
    return len(blobs(mirror.cache)) > 1


@contextmanager
def _gremlin(cache: Path) -> Iterator[list[str]]:
    """Harm whatever lies there, dozens of times a second; yields what was harmed."""
    chance, over, harm = random.Random(1), threading.Event(), list[str]()

    def meddle() -> None:
        while not over.wait(0.02):
            there = [path for path in files(cache) if path.suffix != ".lock"]
            if not there:
                continue
            file = chance.choice(there)
            with suppress(OSError):
                _harm(chance, file)
                harm.append(str(file))

    thread = threading.Thread(target=meddle)
    thread.start()
    try:
        yield harm
    finally:
        over.set()
        thread.join()


def _harm(chance: random.Random, file: Path) -> None:
    match chance.randrange(5):
        case 0:
            file.rename(file.with_name(f"{file.name}-moved"))
        case 1:
            other = file.with_name(f"{file.name}-other")
            other.write_bytes(b"something else")
            other.replace(file)
        case 2 if file.name == "data":
            os.truncate(file, file.stat().st_size // 2)
        case 3 if file.name == "data":
            shutil.rmtree(file.parent)
        case _:
            file.unlink()


def _write_to(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        opened.write(b"something else")
