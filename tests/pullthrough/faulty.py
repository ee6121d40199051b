"""A store that fails when it is told to, and counts what is open."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from zope.interface import implementer

from dockmirror.interfaces import (
    ContentKind,
    IBody,
    IBucketBlob,
    IContentStore,
    IDocumentStore,
    IStoredContent,
    ITagStore,
    TagEntry,
)
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Unavailable
from dockmirror.oci.ranges import ContentRange
from dockmirror.oci.reference import Repository, Tag

from ..answering import Pieces


class Faults:
    """What is wrong with a disk.

    :ivar reading: whether it gives nothing.
    :ivar writing: whether it takes nothing.
    :ivar broken: whether what was opened breaks off.
    :ivar stalled: whether what is written does not come to an end.
    :ivar opened: how many contents are open that were not asked for their bytes and not closed.
    """

    def __init__(self) -> None:
        self.reading = False
        self.writing = False
        self.stalled = False
        self.broken = False
        self.opened = 0

    def read(self) -> None:
        """:raises OSError: when that fails."""
        if self.reading:
            raise OSError("the disk gives nothing")

    async def write(self) -> None:
        """:raises OSError: when that fails."""
        if self.stalled:
            await Deferred()
        if self.writing:
            raise OSError("the disk is full")


@implementer(IStoredContent)
class _Opened:
    def __init__(self, opened: IStoredContent, faults: Faults) -> None:
        self.size = opened.size
        self._opened = opened
        self._faults = faults
        faults.opened += 1

    def body(self, descriptor: Descriptor, segments: Sequence[bytes | ContentRange]) -> IBody:
        self._faults.opened -= 1
        content = self._opened.body(descriptor, segments)
        return Pieces([b"{"], descriptor, Unavailable()) if self._faults.broken else content

    def close(self) -> None:
        self._faults.opened -= 1
        self._opened.close()


@implementer(IContentStore)
class FaultyContents:
    """Contents on such a disk."""

    def __init__(self, contents: IContentStore, faults: Faults) -> None:
        self._contents = contents
        self._faults = faults

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        self._faults.read()
        opened = await self._contents.open(repository, digest, kind)
        if opened is None or IBucketBlob.providedBy(opened):
            return opened
        return _Opened(opened, self._faults)

    async def holds(self, digest: Digest) -> bool:
        self._faults.read()
        return await self._contents.holds(digest)

    async def peek(self, digest: Digest) -> IStoredContent | None:
        self._faults.read()
        opened = await self._contents.peek(digest)
        return opened if opened is None or IBucketBlob.providedBy(opened) else _Opened(opened, self._faults)

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        await self._faults.write()
        return await self._contents.link(repository, digest, kind)

    async def add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> None:
        await self._faults.write()
        await self._contents.add(repository, digest, kind, data)

    async def unlink(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        await self._faults.write()
        await self._contents.unlink(repository, digest, kind)


@implementer(ITagStore)
class FaultyTags:
    """Tags on such a disk."""

    def __init__(self, tags: ITagStore, faults: Faults) -> None:
        self._tags = tags
        self._faults = faults

    async def get(self, repository: Repository, tag: Tag) -> TagEntry | None:
        self._faults.read()
        return await self._tags.get(repository, tag)

    async def put(self, repository: Repository, tag: Tag, digest: Digest) -> None:
        await self._faults.write()
        await self._tags.put(repository, tag, digest)

    async def forget(self, repository: Repository, tag: Tag) -> None:
        await self._faults.write()
        await self._tags.forget(repository, tag)

    async def forget_named(self, repository: Repository, digest: Digest) -> None:
        await self._faults.write()
        await self._tags.forget_named(repository, digest)


@implementer(IDocumentStore)
class FaultyDocuments:
    """Documents on such a disk."""

    def __init__(self, documents: IDocumentStore, faults: Faults) -> None:
        self._documents = documents
        self._faults = faults

    async def read(self, name: str) -> bytes | None:
        self._faults.read()
        return await self._documents.read(name)

    async def write(self, name: str, data: bytes) -> None:
        await self._faults.write()
        await self._documents.write(name, data)
