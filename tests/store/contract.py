"""Contract suites of the stores.

Subclasses give the fixtures and are collected in modules of their own.
"""

# mypy: allow-untyped-decorators

from __future__ import annotations

from collections.abc import Sequence

import pytest
import pytest_twisted  # type: ignore[import-untyped, unused-ignore]
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from dockmirror.body.in_memory import collect
from dockmirror.interfaces import (
    ContentKind,
    IBody,
    IContentStore,
    IDocumentStore,
    IStoredContent,
    ITagStore,
    TagEntry,
)
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.digest import Digest
from dockmirror.oci.ranges import ContentRange
from dockmirror.oci.reference import Repository, Tag

HERE = Repository("docker.io/library/busybox")
ELSEWHERE = Repository("ghcr.io/else/where")
LATEST = Tag("latest")
DATA = b"a small content"
DIGEST = Digest.of(DATA)
LARGE = bytes(range(256)) * 2800
LARGE_DIGEST = Digest.of(LARGE)
PLACES = [
    "docker.io/foo",
    "docker.io/foo/bar",
    "docker.io/foo/bar/bar",
    "docker.io",
    "registry.example.com_5000/foo",
    "docker.io/blobs",
    "docker.io/blobs/sha256",
    "docker.io/link",
    "docker.io/tags/list/current/link",
    "docker.io/manifests/revisions",
    "docker.io/x/layers/sha256",
    "docker.io/" + "a" * 245,
]
"""Names that lie in one another, or are called like what lies beside them."""
NAMES = [
    "plain",
    "Plain",
    "with/slash",
    "with%2Fslash",
    "with?query=1&n=2",
    "",
    ".",
    "..",
    "../../escape",
    ".hidden",
    "%2Ehidden",
    "tab\tand\nline",
    "ünïcode",
    "x" * 200,
    "x" * 201,
    "x" * 2000,
    "x" * 1999 + "y",
    "/" * 90,
]


async def read(opened: IStoredContent | None) -> bytes | None:
    """Read all bytes of an open content."""
    if opened is None:
        return None
    segments = [ContentRange(0, opened.size - 1, opened.size)] if opened.size else []
    return await collect(opened.body(Descriptor(None, None, opened.size), segments), 10 * len(LARGE))


class ContentsContract:
    """The contract of ``IContentStore``."""

    @pytest.fixture
    def contents(self) -> IContentStore:
        raise NotImplementedError

    def test_interface(self, contents: IContentStore) -> None:
        assert verifyObject(IContentStore, contents)

    @pytest_twisted.ensureDeferred
    async def test_absent_content(self, contents: IContentStore) -> None:
        """A content that was never added is absent and cannot be linked."""
        assert not await contents.holds(DIGEST)
        assert await contents.peek(DIGEST) is None
        assert await contents.open(HERE, DIGEST, ContentKind.BLOB) is None
        assert await contents.link(HERE, DIGEST, ContentKind.BLOB) is False

    @pytest_twisted.ensureDeferred
    async def test_refused_link(self, contents: IContentStore) -> None:
        """A link that was refused stays absent when the bytes come later."""
        await contents.link(HERE, DIGEST, ContentKind.BLOB)
        await contents.add(ELSEWHERE, DIGEST, ContentKind.BLOB, DATA)
        assert await contents.open(HERE, DIGEST, ContentKind.BLOB) is None

    @pytest.mark.parametrize("kind", ContentKind)
    @pytest.mark.parametrize("data", [DATA, LARGE, b""], ids=["small", "large", "empty"])
    @pytest_twisted.ensureDeferred
    async def test_added(self, contents: IContentStore, kind: ContentKind, data: bytes) -> None:
        """An added content is held and has its size and its bytes."""
        digest = Digest.of(data)
        await contents.add(HERE, digest, kind, data)
        assert await contents.holds(digest)
        opened = await contents.open(HERE, digest, kind)
        assert opened is not None
        assert verifyObject(IStoredContent, opened)
        assert opened.size == len(data)
        assert await read(opened) == data

    @pytest.mark.parametrize("data", [DATA, LARGE, b""], ids=["small", "large", "empty"])
    @pytest_twisted.ensureDeferred
    async def test_peek_ignores_links(self, contents: IContentStore, data: bytes) -> None:
        """Contents can be compared with others without any repository; that links them to none."""
        digest = Digest.of(data)
        await contents.add(ELSEWHERE, digest, ContentKind.BLOB, data)
        peeked = await contents.peek(digest)
        assert peeked is not None
        assert verifyObject(IStoredContent, peeked)
        assert peeked.size == len(data)
        assert await read(peeked) == data
        assert await contents.open(HERE, digest, ContentKind.BLOB) is None

    @pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
    @pytest_twisted.ensureDeferred
    async def test_algorithms(self, contents: IContentStore, algorithm: str) -> None:
        """Digests of different algorithms are different names."""
        digest = Digest.of(DATA, algorithm)
        await contents.add(HERE, digest, ContentKind.BLOB, DATA)
        assert await read(await contents.open(HERE, digest, ContentKind.BLOB)) == DATA
        others = {Digest.of(DATA, a) for a in ("sha256", "sha384", "sha512")} - {digest}
        assert [await contents.holds(other) for other in others] == [False, False]

    @pytest_twisted.ensureDeferred
    async def test_added_twice(self, contents: IContentStore) -> None:
        """Adding a content again changes nothing."""
        for _ in range(2):
            await contents.add(HERE, DIGEST, ContentKind.BLOB, DATA)
            assert await read(await contents.open(HERE, DIGEST, ContentKind.BLOB)) == DATA

    @pytest_twisted.ensureDeferred
    async def test_access_needs_a_link(self, contents: IContentStore) -> None:
        """A content is open only to repositories that are linked to it."""
        await contents.add(HERE, DIGEST, ContentKind.BLOB, DATA)
        assert await contents.open(ELSEWHERE, DIGEST, ContentKind.BLOB) is None
        assert await contents.link(ELSEWHERE, DIGEST, ContentKind.BLOB) is True
        assert await read(await contents.open(ELSEWHERE, DIGEST, ContentKind.BLOB)) == DATA
        assert await contents.link(ELSEWHERE, DIGEST, ContentKind.BLOB) is True

    @pytest.mark.parametrize("kind", ContentKind)
    @pytest_twisted.ensureDeferred
    async def test_unlinked(self, contents: IContentStore, kind: ContentKind) -> None:
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
    async def test_kinds(self, contents: IContentStore, kind: ContentKind, other: ContentKind) -> None:
        """A content is a blob, a manifest or both, as it was linked."""
        await contents.add(HERE, DIGEST, kind, DATA)
        assert await contents.open(HERE, DIGEST, other) is None
        assert await contents.link(HERE, DIGEST, other)
        assert await read(await contents.open(HERE, DIGEST, other)) == DATA
        assert await read(await contents.open(HERE, DIGEST, kind)) == DATA

    @pytest.mark.parametrize("place", PLACES)
    @pytest_twisted.ensureDeferred
    async def test_repositories_are_separate(self, contents: IContentStore, place: str) -> None:
        """A repository does not have what another one has, whatever their names."""
        await contents.add(Repository(place), DIGEST, ContentKind.MANIFEST, DATA)
        for other in PLACES:
            opened = await contents.open(Repository(other), DIGEST, ContentKind.MANIFEST)
            assert await read(opened) == (DATA if other == place else None)

    @pytest.mark.parametrize("data", [DATA, LARGE], ids=["small", "large"])
    @pytest_twisted.ensureDeferred
    async def test_segments(self, contents: IContentStore, data: bytes) -> None:
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
    async def test_unread(self, contents: IContentStore, data: bytes) -> None:
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
    async def test_concurrency(self, contents: IContentStore) -> None:
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


class TagsContract:
    """The contract of ``ITagStore``."""

    @pytest.fixture
    def clock(self) -> Clock:
        clock = Clock()
        clock.advance(1_700_000_000.25)
        return clock

    @pytest.fixture
    def tags(self, clock: Clock) -> ITagStore:
        raise NotImplementedError

    def test_interface(self, tags: ITagStore) -> None:
        assert verifyObject(ITagStore, tags)

    @pytest_twisted.ensureDeferred
    async def test_unknown(self, tags: ITagStore) -> None:
        """An unknown tag names nothing and may be forgotten."""
        assert await tags.get(HERE, LATEST) is None
        await tags.forget(HERE, LATEST)

    @pytest_twisted.ensureDeferred
    async def test_put(self, tags: ITagStore, clock: Clock) -> None:
        """A tag names the digest it was put to, confirmed at that time."""
        await tags.put(HERE, LATEST, DIGEST)
        confirmed = clock.seconds()
        clock.advance(100)
        assert await tags.get(HERE, LATEST) == TagEntry(DIGEST, confirmed)

    @pytest.mark.parametrize("digest", [DIGEST, LARGE_DIGEST, Digest.of(b"", "sha512")])
    @pytest_twisted.ensureDeferred
    async def test_put_again(self, tags: ITagStore, clock: Clock, digest: Digest) -> None:
        """Putting a tag again, to any digest, confirms it again."""
        await tags.put(HERE, LATEST, DIGEST)
        clock.advance(60)
        await tags.put(HERE, LATEST, digest)
        assert await tags.get(HERE, LATEST) == TagEntry(digest, clock.seconds())

    @pytest_twisted.ensureDeferred
    async def test_tags_are_separate(self, tags: ITagStore) -> None:
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
    async def test_forget(self, tags: ITagStore) -> None:
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
    async def test_forget_named(self, tags: ITagStore) -> None:
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


class DocumentsContract:
    """The contract of ``IDocumentStore``."""

    @pytest.fixture
    def documents(self) -> IDocumentStore:
        raise NotImplementedError

    def test_interface(self, documents: IDocumentStore) -> None:
        assert verifyObject(IDocumentStore, documents)

    @pytest_twisted.ensureDeferred
    async def test_replaced(self, documents: IDocumentStore) -> None:
        """A document is what was last written; None before."""
        assert await documents.read("name") is None
        for data in (b"a long beginning", b"short", b"", LARGE):
            await documents.write("name", data)
            assert await documents.read("name") == data

    @pytest_twisted.ensureDeferred
    async def test_names(self, documents: IDocumentStore) -> None:
        """A document may have any name, and names do not collide."""
        for name in NAMES:
            assert await documents.read(name) is None
            await documents.write(name, name.encode())
        for name in NAMES:
            assert await documents.read(name) == name.encode()
