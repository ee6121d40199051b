"""Small contents in memory, in front of where they are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.task import Clock
from zope.interface import implementer

from dockmirror.interfaces import IContents, IOpened, Kind
from dockmirror.oci.digest import Digest
from dockmirror.oci.reference import Repository
from dockmirror.store import layout
from dockmirror.store.counted import Counted
from dockmirror.store.local import LocalContents
from dockmirror.store.remembered import ASKED_AGAIN, Remembered

from ..answering import now
from .contract import DATA, DIGEST, ELSEWHERE, HERE, LARGE, LARGE_DIGEST, ContentsContract, read
from .memory import MemoryContents
from .threads import inline

MIB = 1024 * 1024


class TestContents(ContentsContract):
    """In memory in front of a directory."""

    @pytest.fixture
    def contents(self, tmp_path: Path) -> IContents:
        """Empty."""
        return Remembered(LocalContents(tmp_path, Clock(), inline), Clock(), MIB)


class TestNothingRemembered(ContentsContract):
    """In front of a directory, without room for anything."""

    @pytest.fixture
    def contents(self, tmp_path: Path) -> IContents:
        """Empty."""
        return Remembered(LocalContents(tmp_path, Clock(), inline), Clock(), 0)


class TestCounted(ContentsContract):
    """Counted, in front of another memory."""

    @pytest.fixture
    def contents(self) -> IContents:
        """Empty."""
        return Counted(MemoryContents(), lambda size: None)


@implementer(IContents)
class Asked(MemoryContents):
    """Counts how often it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = 0

    async def open(self, repository: Repository, digest: Digest, kind: Kind) -> IOpened | None:
        """See ``IContents``."""
        self.opened += 1
        return await super().open(repository, digest, kind)


class Memory:
    """A memory in front of contents that count, at a time that the test sets."""

    def __init__(self, limit: int = MIB) -> None:
        self.clock = Clock()
        self.asked = Asked()
        self.contents = Remembered(self.asked, self.clock, limit)

    def read(self, data: bytes, repository: Repository = HERE) -> bytes | None:
        """What is opened now."""
        return now(read(now(self.contents.open(repository, Digest.of(data), Kind.MANIFEST))))

    def add(self, *datas: bytes) -> None:
        """Adds contents, behind its back."""
        for data in datas:
            now(self.asked.add(HERE, Digest.of(data), Kind.MANIFEST, data))


def test_asked_once() -> None:
    """What is small is asked for once in a while."""
    memory = Memory()
    memory.add(DATA)
    assert [memory.read(DATA) for _ in range(3)] == [DATA] * 3
    assert memory.asked.opened == 1
    memory.clock.advance(ASKED_AGAIN)
    assert memory.read(DATA) == DATA
    assert memory.asked.opened == 2


def test_use_reaches_the_store(tmp_path: Path) -> None:
    """What is served from memory for long is not the least recently used on the disk."""
    clock = Clock()
    contents = Remembered(LocalContents(tmp_path, clock, inline), clock, MIB)
    now(contents.add(HERE, DIGEST, Kind.MANIFEST, DATA))
    for _ in range(10):
        clock.advance(20)
        now(contents.open(HERE, DIGEST, Kind.MANIFEST))
    assert clock.seconds() - (tmp_path / layout.data(DIGEST)).stat().st_mtime < 2 * ASKED_AGAIN


def test_large_is_not_remembered() -> None:
    """What is large is always asked for."""
    memory = Memory()
    memory.add(LARGE)
    assert [memory.read(LARGE) for _ in range(3)] == [LARGE] * 3
    assert memory.asked.opened == 3


def test_evicted_by_another() -> None:
    """What another process evicted is served for a minute at most."""
    memory = Memory()
    memory.add(DATA)
    memory.read(DATA)
    del memory.asked.held[DIGEST]
    memory.clock.advance(ASKED_AGAIN - 1)
    assert memory.read(DATA) == DATA
    memory.clock.advance(1)
    assert memory.read(DATA) is None


def test_evicted_here() -> None:
    """What this process evicted is forgotten, for every repository; the rest is not."""
    memory = Memory()
    memory.add(DATA, b"other")
    now(memory.contents.link(ELSEWHERE, DIGEST, Kind.MANIFEST))
    for repository in (HERE, ELSEWHERE):
        memory.read(DATA, repository)
    memory.read(b"other")
    del memory.asked.held[DIGEST]
    memory.contents.forget([DIGEST, LARGE_DIGEST])
    assert [memory.read(DATA, repository) for repository in (HERE, ELSEWHERE)] == [None, None]
    opened = memory.asked.opened
    assert memory.read(b"other") == b"other"
    assert memory.asked.opened == opened


def test_links_are_seen_at_once() -> None:
    """That something is not there is never remembered, and a refused link is."""
    memory = Memory()
    assert memory.read(DATA) is None
    memory.add(DATA)
    assert memory.read(DATA, ELSEWHERE) is None
    now(memory.contents.link(ELSEWHERE, DIGEST, Kind.MANIFEST))
    assert memory.read(DATA, ELSEWHERE) == DATA
    del memory.asked.held[DIGEST]
    assert not now(memory.contents.link(ELSEWHERE, DIGEST, Kind.MANIFEST))
    assert memory.read(DATA, ELSEWHERE) is None


def test_limit() -> None:
    """What was used least recently makes room for what is new."""
    datas = [bytes([number]) * 10_000 for number in range(6)]
    memory = Memory(limit=4 * 12_000)
    memory.add(*datas)
    for data in (*datas[:4], datas[0], datas[4], datas[5]):
        memory.read(data)
    opened = memory.asked.opened
    for data in (datas[0], datas[4], datas[5], datas[3]):
        assert memory.read(data) == data
    assert memory.asked.opened == opened
    for data in datas[1:3]:
        assert memory.read(data) == data
    assert memory.asked.opened == opened + 2


def test_counted() -> None:
    """What is added is counted; what is opened and linked is not."""
    counts: list[int] = []
    contents = Counted(MemoryContents(), counts.append)
    now(contents.add(HERE, DIGEST, Kind.BLOB, DATA))
    now(contents.link(ELSEWHERE, DIGEST, Kind.BLOB))
    now(contents.open(HERE, DIGEST, Kind.BLOB))
    assert counts == [len(DATA)]
