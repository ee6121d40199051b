"""A store that fails when it is told to, and counts what is open."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from zope.interface import implementer

from dockmirror.interfaces import IContent, IContents, IDistant, IDocuments, IOpened, ITags, Kind, Tagged
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


@implementer(IOpened)
class _Opened:
    def __init__(self, opened: IOpened, faults: Faults) -> None:
        self.size = opened.size
        self._opened = opened
        self._faults = faults
        faults.opened += 1

    def content(self, descriptor: Descriptor, segments: Sequence[bytes | ContentRange]) -> IContent:
        self._faults.opened -= 1
        content = self._opened.content(descriptor, segments)
        return Pieces([b"{"], descriptor, Unavailable()) if self._faults.broken else content

    def close(self) -> None:
        self._faults.opened -= 1
        self._opened.close()


@implementer(IContents)
class FaultyContents:
    """Contents on such a disk."""

    def __init__(self, contents: IContents, faults: Faults) -> None:
        self._contents = contents
        self._faults = faults

    async def open(self, repository: Repository, digest: Digest, kind: Kind) -> IOpened | None:
        """See ``IContents``."""
        self._faults.read()
        opened = await self._contents.open(repository, digest, kind)
        if opened is None or IDistant.providedBy(opened):
            return opened
        return _Opened(opened, self._faults)

    async def holds(self, digest: Digest) -> bool:
        """See ``IContents``."""
        self._faults.read()
        return await self._contents.holds(digest)

    async def peek(self, digest: Digest) -> IOpened | None:
        """See ``IContents``."""
        self._faults.read()
        opened = await self._contents.peek(digest)
        return opened if opened is None or IDistant.providedBy(opened) else _Opened(opened, self._faults)

    async def link(self, repository: Repository, digest: Digest, kind: Kind) -> bool:
        """See ``IContents``."""
        await self._faults.write()
        return await self._contents.link(repository, digest, kind)

    async def add(self, repository: Repository, digest: Digest, kind: Kind, data: bytes) -> None:
        """See ``IContents``."""
        await self._faults.write()
        await self._contents.add(repository, digest, kind, data)

    async def unlink(self, repository: Repository, digest: Digest, kind: Kind) -> None:
        """See ``IContents``."""
        await self._faults.write()
        await self._contents.unlink(repository, digest, kind)


@implementer(ITags)
class FaultyTags:
    """Tags on such a disk."""

    def __init__(self, tags: ITags, faults: Faults) -> None:
        self._tags = tags
        self._faults = faults

    async def get(self, repository: Repository, tag: Tag) -> Tagged | None:
        """See ``ITags``."""
        self._faults.read()
        return await self._tags.get(repository, tag)

    async def put(self, repository: Repository, tag: Tag, digest: Digest) -> None:
        """See ``ITags``."""
        await self._faults.write()
        await self._tags.put(repository, tag, digest)

    async def forget(self, repository: Repository, tag: Tag) -> None:
        """See ``ITags``."""
        await self._faults.write()
        await self._tags.forget(repository, tag)

    async def forget_named(self, repository: Repository, digest: Digest) -> None:
        """See ``ITags``."""
        await self._faults.write()
        await self._tags.forget_named(repository, digest)


@implementer(IDocuments)
class FaultyDocuments:
    """Documents on such a disk."""

    def __init__(self, documents: IDocuments, faults: Faults) -> None:
        self._documents = documents
        self._faults = faults

    async def read(self, name: str) -> bytes | None:
        """See ``IDocuments``."""
        self._faults.read()
        return await self._documents.read(name)

    async def write(self, name: str, data: bytes) -> None:
        """See ``IDocuments``."""
        await self._faults.write()
        await self._documents.write(name, data)
