"""A cache of small contents in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..interfaces import ContentKind, IBucketBlob, IContentStore, IStoredContent
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.request import Repository
from . import layout
from .file_body import StoredBytes, read_content
from .files import Version, file_version

REOPEN_INTERVAL = 60.0
"""Seconds after which a cached content is opened again."""

_MAX_CONTENT = 128 * 1024
_OVERHEAD = 1536

_Key = tuple[Repository, Digest, ContentKind]


@frozen
class _CachedContent:
    """A content, when it was cached, and the versions of its files at that time."""

    data: bytes
    since: float
    files: Mapping[str, Version]

    def is_current(self) -> bool:
        """Report whether all its files are unchanged."""
        return all(file_version(path) == version for path, version in self.files.items())


@implementer(IContentStore)
@define(eq=False)
class MemoryCache:
    """Caches small contents that were opened recently.

    Each hit checks the link and the file with ``stat``, so that changes by any process are seen; absence is
    never cached. After a minute a content is opened again, which records the use, so that it is not evicted.

    :param contents: a store that keeps small contents under ``root``.
    """

    _contents: IContentStore
    _root: Path
    _clock: IReactorTime
    _limit: int
    _size: int = field(default=0, init=False)
    _entries: OrderedDict[_Key, _CachedContent] = field(factory=OrderedDict, init=False)

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        key = repository, digest, kind
        entry = self._entries.get(key)
        if entry is not None and self._is_recent(entry) and entry.is_current():
            self._entries.move_to_end(key)
            return StoredBytes(entry.data)
        self._drop(key)
        opened = await self._contents.open(repository, digest, kind)
        if opened is None or opened.size > _MAX_CONTENT or IBucketBlob.providedBy(opened):
            return opened
        try:
            data = await read_content(opened)
        except RegistryError:
            return None
        self._remember(key, data)
        return StoredBytes(data)

    async def holds(self, digest: Digest) -> bool:
        return await self._contents.holds(digest)

    async def peek(self, digest: Digest) -> IStoredContent | None:
        return await self._contents.peek(digest)

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        return await self._contents.link(repository, digest, kind)

    async def add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> bool:
        return await self._contents.add(repository, digest, kind, data)

    async def unlink(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        await self._contents.unlink(repository, digest, kind)
        self._drop((repository, digest, kind))

    def _is_recent(self, entry: _CachedContent) -> bool:
        return 0 <= self._clock.seconds() - entry.since < REOPEN_INTERVAL

    def _remember(self, key: _Key, data: bytes) -> None:
        self._drop(key)
        files = self._file_versions(*key)
        if files is None:
            return
        self._entries[key] = _CachedContent(data, self._clock.seconds(), files)
        self._size += _cost(data)
        while self._size > self._limit:
            self._drop(next(iter(self._entries)))

    def _file_versions(
        self, repository: Repository, digest: Digest, kind: ContentKind
    ) -> Mapping[str, Version] | None:
        """Return the versions of the link and of the file; None if one of them is missing."""
        found: dict[str, Version] = {}
        for name in (layout.link(repository, digest, kind), layout.data(digest)):
            path = str(self._root / name)
            version = file_version(path)
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
