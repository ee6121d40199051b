"""Every implementation of the stores keeps the contract of its interface."""

# mypy: allow-untyped-decorators

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_twisted  # type: ignore[import-untyped, unused-ignore]
from obstore.store import MemoryStore
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.python.threadpool import ThreadPool
from zope.interface.verify import verifyObject

from dockmirror.body.bodies import collect
from dockmirror.concurrency.coroutines import run_in_pool
from dockmirror.interfaces import (
    ContentKind,
    IBody,
    IContentStore,
    IDocumentStore,
    IStoredContent,
    ITagStore,
    TagEntry,
)
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.header_fields import ContentRange
from dockmirror.oci.request import Repository, Tag
from dockmirror.store.bucket.bucket_stores import BucketContentStore, BucketDocumentStore, BucketTagStore
from dockmirror.store.local_store import LocalContentStore, LocalDocumentStore, LocalTagStore
from dockmirror.store.memory_cache import MemoryCache

from .bucket.machines import Machine, bucket
from .memory import MemoryContents, MemoryDocuments, MemoryTags
from .stocked import DATA, DIGEST, ELSEWHERE, EPOCH, HERE, LARGE, LARGE_DIGEST, LATEST, read
from .threads import inline

MIB = 1024 * 1024
SHM = Path("/dev/shm")  # noqa: S108
PLACES = [
    "docker.io/foo", "docker.io/foo/bar", "docker.io/foo/bar/bar", "docker.io",
    "registry.example.com_5000/foo", "docker.io/blobs",
    "docker.io/blobs/sha256", "docker.io/link", "docker.io/tags/list/current/link",
    "docker.io/manifests/revisions", "docker.io/x/layers/sha256", "docker.io/" + "a" * 245,
]  # fmt: skip
"""Names within one another, or like those of the store's own directories."""
NAMES = [
    "plain", "Plain", "with/slash", "with%2Fslash", "with?query=1&n=2", "", ".", "..", "../../escape",
    ".hidden", "%2Ehidden",
    "tab\tand\nline", "ünïcode", "x" * 200, "x" * 201, "x" * 2000, "x" * 1999 + "y", "/" * 90,
]  # fmt: skip


CONTENTS: dict[str, Callable[[Path, Clock], IContentStore]] = {
    "memory": lambda root, clock: MemoryContents(),
    "disk": lambda root, clock: LocalContentStore(root, clock, inline),
    "cached disk": lambda root, clock: MemoryCache(LocalContentStore(root, clock, inline), root, clock, MIB),
    "full cache": lambda root, clock: MemoryCache(LocalContentStore(root, clock, inline), root, clock, 0),
    "bucket": lambda root, clock: BucketContentStore(bucket(clock), clock),
    "redirected": lambda root, clock: BucketContentStore(bucket(clock), clock, 60.0),
    "tiered": lambda root, clock: Machine(root, MemoryStore(), clock).contents,
}
TAGS: dict[str, Callable[[Path, Clock], ITagStore]] = {
    "memory": lambda root, clock: MemoryTags(clock),
    "disk": lambda root, clock: LocalTagStore(root, clock, inline),
    "bucket": lambda root, clock: BucketTagStore(bucket(clock), clock),
    "tiered": lambda root, clock: Machine(root, MemoryStore(), clock).tags,
}
DOCUMENTS: dict[str, Callable[[Path, Clock], IDocumentStore]] = {
    "memory": lambda root, clock: MemoryDocuments(),
    "disk": lambda root, clock: LocalDocumentStore(root, clock, inline),
    "bucket": lambda root, clock: BucketDocumentStore(bucket(clock)),
    "tiered": lambda root, clock: Machine(root, MemoryStore(), clock).documents,
}
SEAWEEDFS = pytest.param("seaweedfs", marks=pytest.mark.integration)


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(EPOCH + 0.25)
    return clock


@pytest.fixture(params=[*CONTENTS, "threads", "tmpfs", SEAWEEDFS])
def contents(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[IContentStore]:
    """Contents in memory, on a disk, in a bucket, and in what stands before these.

    A file system in memory cannot tell which pages are cached.
    """
    if request.param in CONTENTS:
        yield CONTENTS[request.param](tmp_path, clock)
        return
    if request.param == "seaweedfs":
        yield BucketContentStore(bucket(clock, request.getfixturevalue("seaweedfs").store()), clock)
        return
    if request.param == "tmpfs" and not SHM.is_dir():
        pytest.skip("there is no file system in memory")
    pool = ThreadPool(0, 4)
    pool.start()
    with tempfile.TemporaryDirectory(dir=SHM if request.param == "tmpfs" else tmp_path) as root:
        yield LocalContentStore(Path(root), clock, run_in_pool(reactor, pool))  # type: ignore[arg-type]
    pool.stop()


@pytest.fixture(params=[*TAGS, SEAWEEDFS])
def tags(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> ITagStore:
    if request.param in TAGS:
        return TAGS[request.param](tmp_path, clock)
    return BucketTagStore(bucket(clock, request.getfixturevalue("seaweedfs").store()), clock)


@pytest.fixture(params=[*DOCUMENTS, SEAWEEDFS])
def documents(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> IDocumentStore:
    if request.param in DOCUMENTS:
        return DOCUMENTS[request.param](tmp_path, clock)
    return BucketDocumentStore(bucket(clock, request.getfixturevalue("seaweedfs").store()))


@pytest_twisted.ensureDeferred
async def test_absent_content(contents: IContentStore) -> None:
    """An absent content cannot be linked; a link that was refused stays absent when the bytes come later."""
    assert verifyObject(IContentStore, contents)
    assert not await contents.holds(DIGEST)
    assert await contents.peek(DIGEST) is None
    assert await contents.open(HERE, DIGEST, ContentKind.BLOB) is None
    assert await contents.link(HERE, DIGEST, ContentKind.BLOB) is False
    await contents.add(ELSEWHERE, DIGEST, ContentKind.BLOB, DATA)
    assert await contents.open(HERE, DIGEST, ContentKind.BLOB) is None


@pytest.mark.parametrize("kind", ContentKind)
@pytest.mark.parametrize("data", [DATA, LARGE, b""], ids=["small", "large", "empty"])
@pytest_twisted.ensureDeferred
async def test_added(contents: IContentStore, kind: ContentKind, data: bytes) -> None:
    """An added content has its size and its bytes, for its repository and when it is peeked at."""
    digest = Digest.of(data)
    for _ in range(2):
        await contents.add(HERE, digest, kind, data)
        assert await contents.holds(digest)
        for opened in (await contents.open(HERE, digest, kind), await contents.peek(digest)):
            assert opened is not None
            assert verifyObject(IStoredContent, opened)
            assert opened.size == len(data)
            assert await read(opened) == data
        assert await contents.open(ELSEWHERE, digest, kind) is None


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest_twisted.ensureDeferred
async def test_algorithms(contents: IContentStore, algorithm: str) -> None:
    """Digests of different algorithms are different names."""
    digest = Digest.of(DATA, algorithm)
    await contents.add(HERE, digest, ContentKind.BLOB, DATA)
    assert await read(await contents.open(HERE, digest, ContentKind.BLOB)) == DATA
    others = {Digest.of(DATA, a) for a in ("sha256", "sha384", "sha512")} - {digest}
    assert [await contents.holds(other) for other in others] == [False, False]


@pytest.mark.parametrize("kind", ContentKind)
@pytest_twisted.ensureDeferred
async def test_unlinked(contents: IContentStore, kind: ContentKind) -> None:
    """A content stays for other repositories when one is unlinked, which may be linked again."""
    await contents.add(ELSEWHERE, DIGEST, kind, DATA)
    await contents.unlink(HERE, DIGEST, kind)
    assert await contents.link(HERE, DIGEST, kind)
    assert await read(await contents.open(HERE, DIGEST, kind)) == DATA
    await contents.unlink(HERE, DIGEST, kind)
    assert await contents.open(HERE, DIGEST, kind) is None
    assert await read(await contents.open(ELSEWHERE, DIGEST, kind)) == DATA
    assert await contents.link(HERE, DIGEST, kind)
    assert await read(await contents.open(HERE, DIGEST, kind)) == DATA


@pytest.mark.parametrize(
    ("kind", "other"),
    [(ContentKind.BLOB, ContentKind.MANIFEST), (ContentKind.MANIFEST, ContentKind.BLOB)],
)
@pytest_twisted.ensureDeferred
async def test_kinds(contents: IContentStore, kind: ContentKind, other: ContentKind) -> None:
    """A content is a blob, a manifest or both, as it was linked."""
    await contents.add(HERE, DIGEST, kind, DATA)
    assert await contents.open(HERE, DIGEST, other) is None
    assert await contents.link(HERE, DIGEST, other)
    assert await read(await contents.open(HERE, DIGEST, other)) == DATA
    assert await read(await contents.open(HERE, DIGEST, kind)) == DATA


@pytest.mark.parametrize("place", PLACES)
@pytest_twisted.ensureDeferred
async def test_repositories_are_separate(contents: IContentStore, place: str) -> None:
    """A repository does not have what another one has, whatever their names."""
    await contents.add(Repository(place), DIGEST, ContentKind.MANIFEST, DATA)
    for other in PLACES:
        opened = await contents.open(Repository(other), DIGEST, ContentKind.MANIFEST)
        assert await read(opened) == (DATA if other == place else None)


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["small", "large"])
@pytest_twisted.ensureDeferred
async def test_segments(contents: IContentStore, data: bytes) -> None:
    """Ranges, and bytes between them, are delivered in order."""
    digest, size = Digest.of(data), len(data)
    await contents.add(HERE, digest, ContentKind.BLOB, data)
    segments: Sequence[bytes | ContentRange] = [
        b"<", ContentRange(size - 3, size - 1, size), b"|", ContentRange(0, 0, size), b"",
        ContentRange(2, size - 2, size), b">",
    ]  # fmt: skip
    expected = b"<" + data[-3:] + b"|" + data[:1] + data[2:-1] + b">"
    descriptor = Descriptor("multipart/byteranges", None, len(expected))
    opened = await contents.open(HERE, digest, ContentKind.BLOB)
    assert opened is not None
    content = opened.body(descriptor, segments)
    assert verifyObject(IBody, content)
    assert content.descriptor is descriptor
    assert await collect(content, size + 9) == expected


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["small", "large"])
@pytest_twisted.ensureDeferred
async def test_unread(contents: IContentStore, data: bytes) -> None:
    """An open content can be closed unread, and its body discarded."""
    digest = Digest.of(data)
    await contents.add(HERE, digest, ContentKind.BLOB, data)
    for _ in range(3):
        opened = await contents.open(HERE, digest, ContentKind.BLOB)
        assert opened is not None
        opened.close()
        opened = await contents.open(HERE, digest, ContentKind.BLOB)
        assert opened is not None
        opened.body(Descriptor(), [ContentRange(0, 1, len(data))]).discard()


@pytest_twisted.ensureDeferred
async def test_concurrency(contents: IContentStore) -> None:
    """Contents can be added and opened concurrently."""

    async def one(number: int) -> bytes | None:
        data = b"%d " % (number % 5) + LARGE
        digest, place = Digest.of(data), Repository(f"docker.io/r{number % 3}")
        await contents.add(place, digest, ContentKind.BLOB, data)
        await contents.link(HERE, digest, ContentKind.MANIFEST)
        await contents.open(HERE, DIGEST, ContentKind.BLOB)
        return await read(await contents.open(place, digest, ContentKind.BLOB))

    results = await gatherResults([Deferred.fromCoroutine(one(number)) for number in range(20)])
    assert results == [b"%d " % (number % 5) + LARGE for number in range(20)]


@pytest_twisted.ensureDeferred
async def test_unknown(tags: ITagStore) -> None:
    """An unknown tag names nothing and may be forgotten."""
    assert verifyObject(ITagStore, tags)
    assert await tags.get(HERE, LATEST) is None
    await tags.forget(HERE, LATEST)


@pytest.mark.parametrize("digest", [DIGEST, LARGE_DIGEST, Digest.of(b"", "sha512")])
@pytest_twisted.ensureDeferred
async def test_put(tags: ITagStore, clock: Clock, digest: Digest) -> None:
    """A tag names the digest it was put to last, confirmed at that time."""
    for named in (DIGEST, digest):
        clock.advance(60)
        await tags.put(HERE, LATEST, named)
        confirmed = clock.seconds()
        clock.advance(1)
        assert await tags.get(HERE, LATEST) == TagEntry(named, confirmed)


@pytest_twisted.ensureDeferred
async def test_tags_are_separate(tags: ITagStore) -> None:
    """Tags belong to their repository, and their case counts."""
    places = [Repository(place) for place in PLACES[:3]]
    names = [Tag(name) for name in ("V1", "v1", "current", "index", "link", "_x", "a" * 128)]
    named = {(p, n): Digest.of(f"{p}:{n}".encode()) for p in places for n in names}
    for (place, name), digest in named.items():
        await tags.put(place, name, digest)
    for (place, name), digest in named.items():
        found = await tags.get(place, name)
        assert found is not None
        assert found.digest == digest


@pytest_twisted.ensureDeferred
async def test_forget(tags: ITagStore) -> None:
    """A forgotten tag names nothing and may be put again; others stay."""
    other = Tag("other")
    await tags.put(HERE, LATEST, LARGE_DIGEST)
    await tags.put(HERE, LATEST, DIGEST)
    await tags.put(HERE, other, DIGEST)
    await tags.forget(HERE, LATEST)
    assert await tags.get(HERE, LATEST) is None
    assert await tags.get(HERE, other) is not None
    await tags.put(HERE, LATEST, LARGE_DIGEST)
    found = await tags.get(HERE, LATEST)
    assert found is not None
    assert found.digest == LARGE_DIGEST


@pytest_twisted.ensureDeferred
async def test_forget_named(tags: ITagStore) -> None:
    """All tags that name a digest are forgotten, and no others."""
    await tags.forget_named(HERE, DIGEST)
    for place, name, digest in (
        (HERE, "a", DIGEST), (HERE, "b", LARGE_DIGEST), (HERE, "b", DIGEST), (HERE, "c", DIGEST),
        (HERE, "c", LARGE_DIGEST), (ELSEWHERE, "a", DIGEST),
    ):  # fmt: skip
        await tags.put(place, Tag(name), digest)
    await tags.forget_named(HERE, DIGEST)
    named = [await tags.get(HERE, Tag(name)) for name in "abc"]
    assert [tagged and tagged.digest for tagged in named] == [None, None, LARGE_DIGEST]
    assert await tags.get(ELSEWHERE, Tag("a")) is not None


@pytest_twisted.ensureDeferred
async def test_replaced(documents: IDocumentStore) -> None:
    """A document is what was last written; None before."""
    assert verifyObject(IDocumentStore, documents)
    assert await documents.read("name") is None
    for data in (b"a long beginning", b"short", b"", LARGE):
        await documents.write("name", data)
        assert await documents.read("name") == data


@pytest_twisted.ensureDeferred
async def test_names(documents: IDocumentStore) -> None:
    """A document may have any name, and names do not collide."""
    for name in NAMES:
        assert await documents.read(name) is None
        await documents.write(name, name.encode())
    for name in NAMES:
        assert await documents.read(name) == name.encode()
