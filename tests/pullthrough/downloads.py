"""Blobs on their way in, in memory: as much of it as the pull-through cache sees."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from dockmirror.body.bodies import CorruptContent, collect
from dockmirror.interfaces import (
    Answer,
    ContentKind,
    IBody,
    IDownloadReader,
    IDownloads,
    IPartSource,
    ISource,
)
from dockmirror.oci.consent import HeldBlob
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import RangeInvalid
from dockmirror.oci.header_fields import CacheResult, CacheStatus, ContentRange, Span
from dockmirror.oci.request import Repository
from dockmirror.store.downloads.context import MAX_WAIT

from ..store.memory import MemoryContents

_LIMIT = 1024 * 1024


class _Fetch:
    """A download, which completes when the test says so."""

    def __init__(self, size: int | None, data: bytes) -> None:
        self.size = size
        self.data = data
        self.readers = 0
        self.whole = False
        self.arrived: list[Callable[[], None]] = []

    async def read(self, part: ContentRange) -> bytes:
        return self.data[part.first : part.last + 1]


@implementer(IBody)
class _Coming:
    """A body that is delivered when the download completes."""

    def __init__(self, fetch: _Fetch, descriptor: Descriptor, part: ContentRange | None) -> None:
        self.descriptor = descriptor
        self._fetch = fetch
        self._part = part

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        done: Deferred[None] = Deferred()

        def deliver() -> None:
            part = self._part
            consumer.write(self._fetch.data[part.first : part.last + 1] if part else self._fetch.data)
            done.callback(None)

        if self._fetch.whole:
            deliver()
        else:
            self._fetch.arrived.append(deliver)
        return done

    def discard(self) -> None:
        self._fetch.readers -= 1


@implementer(IDownloadReader)
class _Reader:
    def __init__(self, fetch: _Fetch, joined: bool, seconds: float) -> None:
        self.size: int | None = fetch.size
        self.joined = joined
        self._fetch = fetch
        self._seconds = seconds
        fetch.readers += 1

    def content(self, descriptor: Descriptor, part: ContentRange | None) -> IBody:
        return _Coming(self._fetch, descriptor, part)

    def choose_part(self, span: Span) -> ContentRange | None:
        part = span.resolve(self.size) if self.size is not None else None
        if part is not None and (part.first == 0 or self._seconds <= MAX_WAIT):
            return part
        self.leave()
        if self.size is not None and part is None:
            raise RangeInvalid(content_size=self.size)
        return None

    def leave(self) -> None:
        self._fetch.readers -= 1


@implementer(IDownloads)
class MemoryDownloads:
    """Blobs that come at once, or, where they are slow, when the test says so.

    :ivar slow: whether what is begun grows on until ``finish``.
    :ivar seconds: how long any part is said to take to come.
    :ivar told: whether sizes are known.
    :ivar full: whether the disk takes nothing.
    :ivar source: of who joined last.
    """

    def __init__(self, contents: MemoryContents) -> None:
        self.slow = False
        self.seconds = 0.0
        self.told = True
        self.full = False
        self.source: ISource | None = None
        self._contents = contents
        self._fetches: dict[tuple[str, Digest], tuple[_Fetch, set[Repository]]] = {}

    @property
    def readers(self) -> int:
        """The number of readers that have neither read nor left."""
        return sum(fetch.readers for fetch, _ in self._fetches.values())

    def is_downloading(self, registry: str, digest: Digest) -> bool:
        return (registry, digest) in self._fetches

    async def join(
        self, registry: str, repository: Repository, digest: Digest, source: ISource
    ) -> IDownloadReader:
        if self.full:
            raise OSError("the disk is full")
        self.source = source
        key = registry, digest
        joined = key in self._fetches
        if joined:
            fetch, repositories = self._fetches[key]
            await source.check(HeldBlob(fetch.size, fetch.read))
            repositories.add(repository)
        else:
            data = await collect((await source.open(0)).body, _LIMIT)
            if not digest.matches(data):
                raise CorruptContent(f"it is not {digest}")
            fetch = _Fetch(len(data) if self.told else None, data)
            self._fetches[key] = fetch, {repository}
        reader = _Reader(fetch, joined, self.seconds)
        if not self.slow:
            self.finish()
        return reader

    async def read_part(
        self, registry: str, repository: Repository, digest: Digest, span: Span, source: IPartSource
    ) -> Answer | None:
        """Read a part of a download that comes soon; otherwise have it passed through."""
        if not self.is_downloading(registry, digest):
            return None
        reader = await self.join(registry, repository, digest, source)
        part = reader.choose_part(span)
        if part is None:
            return None
        descriptor = Descriptor("application/octet-stream", digest, part.length)
        status = CacheStatus(CacheResult.JOINED)
        return Answer(reader.content(descriptor, part), 206, part, cache=status)

    def finish(self) -> None:
        """Complete all downloads."""
        fetches, self._fetches = self._fetches, {}
        for (_, digest), (fetch, repositories) in fetches.items():
            self._contents.held[digest] = fetch.data
            self._contents.links |= {(repository, digest, ContentKind.BLOB) for repository in repositories}
            fetch.whole = True
            for deliver in fetch.arrived:
                deliver()
