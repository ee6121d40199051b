"""Small contents in memory, in front of where they are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..body.in_memory import collect
from ..interfaces import ContentKind, IBucketBlob, IContentStore, IStoredContent
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.ranges import ContentRange
from ..oci.reference import Repository
from . import atomic_file, layout
from .open_content import StoredBytes

ASKED_AGAIN = 60.0
"""Seconds after which what is remembered is opened again."""

_LARGEST = 128 * 1024
_OVERHEAD = 1536

_Key = tuple[Repository, Digest, ContentKind]


@frozen
class _CachedContent:
    """A content, since when it is remembered, and the files that it came from, as they were then."""

    data: bytes
    since: float
    files: Mapping[str, atomic_file.Version]

    def is_current(self) -> bool:
        """Whether none of the files has changed or gone."""
        return all(atomic_file.file_version(path) == version for path, version in self.files.items())


@implementer(IContentStore)
class MemoryCache:
    """Remembers the bytes of small contents that were opened of late.

    Each hit looks at the link and at the file, without reading them: what any process has removed or
    replaced is opened anew, and what is not on the disk is not remembered at all.  That something is not
    there is never remembered.  After a minute a content is opened again in any case, which notes its use,
    so that what is served from here is not the least recently used there.

    :param contents: which keeps small contents under ``root``.
    """

    def __init__(self, contents: IContentStore, root: Path, clock: IReactorTime, limit: int) -> None:
        self._contents = contents
        self._root = root
        self._clock = clock
        self._limit = limit
        self._size = 0
        self._entries: OrderedDict[_Key, _CachedContent] = OrderedDict()

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        """See ``IContentStore``."""
        key = repository, digest, kind
        entry = self._entries.get(key)
        if entry is not None and self._is_recent(entry) and entry.is_current():
            self._entries.move_to_end(key)
            return StoredBytes(entry.data)
        self._drop(key)
        opened = await self._contents.open(repository, digest, kind)
        if opened is None or opened.size > _LARGEST or IBucketBlob.providedBy(opened):
            return opened
        data = await _all(opened)
        if data is None:
            return None
        self._remember(key, data)
        return StoredBytes(data)

    async def holds(self, digest: Digest) -> bool:
        """See ``IContentStore``."""
        return await self._contents.holds(digest)

    async def peek(self, digest: Digest) -> IStoredContent | None:
        """See ``IContentStore``."""
        return await self._contents.peek(digest)

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        """See ``IContentStore``."""
        return await self._contents.link(repository, digest, kind)

    async def add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> None:
        """See ``IContentStore``."""
        await self._contents.add(repository, digest, kind, data)

    async def unlink(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        """See ``IContentStore``."""
        await self._contents.unlink(repository, digest, kind)
        self._drop((repository, digest, kind))

    def _is_recent(self, entry: _CachedContent) -> bool:
        return 0 <= self._clock.seconds() - entry.since < ASKED_AGAIN

    def _remember(self, key: _Key, data: bytes) -> None:
        self._drop(key)
        files = self._files(*key)
        if files is None:
            return
        self._entries[key] = _CachedContent(data, self._clock.seconds(), files)
        self._size += _cost(data)
        while self._size > self._limit:
            self._drop(next(iter(self._entries)))

    def _files(
        self, repository: Repository, digest: Digest, kind: ContentKind
    ) -> Mapping[str, atomic_file.Version] | None:
        """The link and the file as they are now; None where one of them is not there."""
        found: dict[str, atomic_file.Version] = {}
        for name in (layout.link(repository, digest, kind), layout.data(digest)):
            path = str(self._root / name)
            version = atomic_file.file_version(path)
            if version is None:
                return None
            found[path] = version
        return found

    def _drop(self, key: _Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._size -= _cost(entry.data)


def _cost(data: bytes) -> int:
    return len(data) + _OVERHEAD


async def _all(opened: IStoredContent) -> bytes | None:
    """The whole content; None where it cannot be completed."""
    whole = [ContentRange(0, opened.size - 1, opened.size)] if opened.size else []
    try:
        return await collect(opened.body(Descriptor(size=opened.size), whole), opened.size)
    except RegistryError:
        return None
