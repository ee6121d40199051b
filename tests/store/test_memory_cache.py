"""A cache of small contents in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from twisted.internet.task import Clock
from zope.interface import implementer

from dockmirror.interfaces import ContentKind, IBucketBlob, IContentStore, IStoredContent
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Repository
from dockmirror.store import layout
from dockmirror.store.bucket.bucket_stores import BucketContentStore
from dockmirror.store.local_store import LocalContentStore
from dockmirror.store.memory_cache import REOPEN_INTERVAL, MemoryCache

from ..answering import now
from .bucket.machines import bucket
from .memory import MemoryContents
from .stocked import DATA, DIGEST, ELSEWHERE, HERE, LARGE, read
from .threads import inline

MIB = 1024 * 1024
T = TypeVar("T")


@implementer(IContentStore)
class CountingStore(LocalContentStore):
    """A store that counts how often it is opened."""

    opened = 0

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        self.opened += 1
        return await super().open(repository, digest, kind)


class CacheAndDisk:
    """A cache in front of a directory, with a clock that the test sets."""

    def __init__(self, root: Path, limit: int = MIB) -> None:
        self.root = root
        self.clock = Clock()
        self.store = CountingStore(root, self.clock, inline)
        self.contents = MemoryCache(self.store, root, self.clock, limit)

    def read(self, data: bytes, repository: Repository = HERE) -> bytes | None:
        return now(read(now(self.contents.open(repository, Digest.of(data), ContentKind.MANIFEST))))

    def add(self, *datas: bytes) -> None:
        """Add contents to the directory, past the cache."""
        for data in datas:
            now(self.store.add(HERE, Digest.of(data), ContentKind.MANIFEST, data))

    def file(self, data: bytes) -> Path:
        return self.root / layout.data(Digest.of(data))

    def link(self, data: bytes, repository: Repository = HERE) -> Path:
        return self.root / layout.link(repository, Digest.of(data), ContentKind.MANIFEST)


@pytest.fixture
def memory(tmp_path: Path) -> CacheAndDisk:
    return CacheAndDisk(tmp_path)


@pytest.mark.parametrize(("data", "opened"), [(DATA, 1), (LARGE, 3)], ids=["small", "large"])
def test_hit(memory: CacheAndDisk, data: bytes, opened: int) -> None:
    """A small content is opened in the store once a minute, a large one each time."""
    memory.add(data)
    assert [memory.read(data) for _ in range(3)] == [data] * 3
    assert memory.store.opened == opened
    memory.clock.advance(REOPEN_INTERVAL)
    assert memory.read(data) == data
    assert memory.store.opened == opened + 1


@pytest.mark.parametrize("what", ["file", "link"])
def test_removed(memory: CacheAndDisk, what: str) -> None:
    """A removed file is served to no repository, a removed link not to its own; the rest is still served."""
    memory.add(DATA, b"other")
    now(memory.contents.link(ELSEWHERE, DIGEST, ContentKind.MANIFEST))
    wanted = (DATA, HERE), (DATA, ELSEWHERE), (b"other", HERE)
    assert [memory.read(*each) for each in wanted] == [DATA, DATA, b"other"]
    removed = memory.file(DATA) if what == "file" else memory.link(DATA)
    removed.unlink()
    assert [memory.read(*each) for each in wanted] == [None, None if what == "file" else DATA, b"other"]
    assert not removed.exists()


def test_corrupt_contents(memory: CacheAndDisk) -> None:
    """A corrupt file is found although its content is cached; the content can be added and cached again."""
    memory.add(DATA)
    memory.read(DATA)
    memory.file(DATA).write_bytes(DATA.upper())
    assert memory.read(DATA) is None
    assert not memory.file(DATA).exists()
    memory.add(DATA)
    opened = memory.store.opened
    assert [memory.read(DATA) for _ in range(3)] == [DATA] * 3
    assert memory.store.opened == opened + 1


def test_removed_while_it_is_opened(memory: CacheAndDisk) -> None:
    """A content that is removed while it is opened is not cached."""
    memory.add(DATA)

    async def removing(call: Callable[[], T], /) -> T:
        result = call()
        memory.file(DATA).unlink(missing_ok=True)
        return result

    contents = LocalContentStore(memory.root, memory.clock, removing)
    cache = MemoryCache(contents, memory.root, memory.clock, MIB)
    assert now(read(now(cache.open(HERE, DIGEST, ContentKind.MANIFEST)))) == DATA
    assert now(cache.open(HERE, DIGEST, ContentKind.MANIFEST)) is None


def test_contents_without_a_file_are_not_cached(tmp_path: Path) -> None:
    """A content without a file is not cached, since its removal could not be seen; nor one in a bucket."""
    contents, clock = MemoryContents(), Clock()
    now(contents.add(HERE, DIGEST, ContentKind.BLOB, DATA))
    cache = MemoryCache(contents, tmp_path, clock, MIB)
    assert now(read(now(cache.open(HERE, DIGEST, ContentKind.BLOB)))) == DATA
    contents.links.clear()
    assert now(cache.open(HERE, DIGEST, ContentKind.BLOB)) is None
    remote = BucketContentStore(objects := bucket(clock), clock)
    now(remote.add(HERE, DIGEST, ContentKind.BLOB, DATA))
    objects.requests.clear()
    cache = MemoryCache(remote, tmp_path, clock, MIB)
    assert IBucketBlob.providedBy(now(cache.open(HERE, DIGEST, ContentKind.BLOB)))
    assert objects.requests == {"head": 1}


def test_absence_is_not_cached(memory: CacheAndDisk) -> None:
    """Absence is never cached."""
    assert memory.read(DATA) is None
    memory.add(DATA)
    assert memory.read(DATA, ELSEWHERE) is None
    now(memory.contents.link(ELSEWHERE, DIGEST, ContentKind.MANIFEST))
    assert memory.read(DATA, ELSEWHERE) == DATA


def test_limit(tmp_path: Path) -> None:
    """The least recently used contents make room for new ones."""
    datas = [bytes([number]) * 10_000 for number in range(6)]
    memory = CacheAndDisk(tmp_path, limit=4 * 12_000)
    memory.add(*datas)
    for data in (*datas[:4], datas[0], datas[4], datas[5]):
        memory.read(data)
    opened = memory.store.opened
    for data in (datas[0], datas[4], datas[5], datas[3]):
        assert memory.read(data) == data
    assert memory.store.opened == opened
    for data in datas[1:3]:
        assert memory.read(data) == data
    assert memory.store.opened == opened + 2
