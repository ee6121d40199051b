"""Contents on a disk."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..concurrency.ttl_cache import TTLCache
from ..interfaces import ContentKind, IContentStore, IDocumentStore, IStoredContent, ITagStore, TagEntry
from ..oci.digest import Digest
from ..oci.reference import Repository, Tag
from . import atomic_file, files, layout, links
from .data_files import is_stored, is_verified, open_file, read_verified
from .file_reader import FileReader
from .open_content import OpenFile, StoredBytes
from .seal import is_sealed, seal, touch_sealed
from .threads import RunInThread, shield

_READ_WHOLE = {ContentKind.BLOB: 64 * 1024, ContentKind.MANIFEST: 4 * 1024 * 1024}
"""Up to how many bytes a content is read and verified whenever it is opened."""

_READ_AGAIN = 3
"""How often it is read, where it is written to or touched meanwhile."""

_log = Logger()


@implementer(IContentStore)
class LocalContentStore:
    """Contents in a directory, which several processes may use at once.

    Of a file only so much can be told without reading it: that it is there and, unless its digest is that
    of nothing, not empty.  What is small is verified when it is opened, and what is larger when nobody has
    done so since it was written to; it is removed where it is wrong.
    """

    def __init__(self, root: Path, clock: IReactorTime, in_thread: RunInThread) -> None:
        self._root = root
        self._clock = clock
        self._in_thread = in_thread
        self._seals = True

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        """See ``IContentStore``; what the disk does not give is not held."""
        opening = self._in_thread(partial(self._open, repository, digest, kind, self._clock.seconds()))
        return await shield(opening, late=_close)

    async def holds(self, digest: Digest) -> bool:
        """See ``IContentStore``."""
        return await self._in_thread(partial(is_stored, self._root / layout.data(digest), digest))

    async def peek(self, digest: Digest) -> IStoredContent | None:
        """See ``IContentStore``; as the file stands, neither verified nor noted as used."""
        return await shield(self._in_thread(partial(self._peek, digest)), late=_close)

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        """See ``IContentStore``; False also where the disk takes no link."""
        linking = self._in_thread(partial(self._link, repository, digest, kind, self._clock.seconds()))
        try:
            return await linking
        except OSError as error:
            _log.error("{digest} cannot be linked: {error}", digest=digest, error=error)
            return False

    async def add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> None:
        """See ``IContentStore``."""
        now = self._clock.seconds()
        await self._in_thread(partial(self._add, repository, digest, kind, data, now))

    async def unlink(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        """See ``IContentStore``."""
        link = self._root / layout.link(repository, digest, kind)
        await self._in_thread(partial(links.remove_link, link, self._root))

    def _open(
        self, repository: Repository, digest: Digest, kind: ContentKind, now: float
    ) -> IStoredContent | None:
        try:
            if not links.links_to(self._root / layout.link(repository, digest, kind), digest):
                return None
            return self._opened(digest, kind, now)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            _log.error("{digest} cannot be read: {error}", digest=digest, error=error)
            return None

    def _opened(self, digest: Digest, kind: ContentKind, now: float) -> IStoredContent | None:
        path = self._root / layout.data(digest)
        with ExitStack() as closing:
            file = open_file(path)
            closing.callback(os.close, file)
            status = os.fstat(file)
            if status.st_size <= _READ_WHOLE[kind]:
                content = read_verified(path, file, digest)
                if content is None:
                    _log.error("{path} was not the content of its name, and is removed", path=path)
                    return None
                files.touch(file, status.st_mtime, now)
                return StoredBytes(content)
            if is_sealed(status):
                files.touch(file, status.st_mtime, now)
            elif not self._is_right(path, file, digest, now):
                return None
            closing.pop_all()
            return OpenFile(FileReader(file, self._in_thread), status.st_size, self._clock)

    def _peek(self, digest: Digest) -> IStoredContent | None:
        data = self._root / layout.data(digest)
        try:
            file = open_file(data) if is_stored(data, digest) else None
        except OSError:
            return None
        if file is None:
            return None
        return OpenFile(FileReader(file, self._in_thread), os.fstat(file).st_size, self._clock)

    def _is_right(self, path: Path, file: int, digest: Digest, now: float) -> bool:
        """Reads what was not filled here, or has been written to since, once; nothing while it is written to.

        Where that cannot be marked, by a file system or on a disk that takes nothing, it would have to be
        read each time, and is not.
        """
        if not self._seals:
            files.touch(file, os.fstat(file).st_mtime, now)
            return True
        if not self._is_verified(path, file, digest):
            return False
        try:
            self._seals = seal(file, now)
        except OSError:
            self._seals = False
        return True

    def _is_verified(self, path: Path, file: int, digest: Digest) -> bool:
        for _ in range(_READ_AGAIN):
            before = os.fstat(file).st_mtime_ns
            if not is_verified(path, file, digest):
                _log.error("{path} was not the content of its name, and is removed", path=path)
                return False
            after = os.fstat(file)
            if after.st_mtime_ns == before or is_sealed(after):  # by another that opens it
                return True
        return False

    def _link(self, repository: Repository, digest: Digest, kind: ContentKind, now: float) -> bool:
        data, link = self._root / layout.data(digest), self._root / layout.link(repository, digest, kind)
        if not is_stored(data, digest):
            return False
        with suppress(OSError):  # an eviction that has chosen it sees that it is wanted
            touch_sealed(data, now)
        links.write_link(link, digest, self._root, now)
        if not is_stored(data, digest):
            links.remove_link(link, self._root)
            return False
        return True

    def _add(
        self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes, now: float
    ) -> None:
        atomic_file.replace_file(self._root / layout.data(digest), data, self._root / layout.WRITING, now)
        links.write_link(self._root / layout.link(repository, digest, kind), digest, self._root, now)


def _close(opened: IStoredContent | None) -> None:
    if opened is not None:
        opened.close()


READ_AGAIN = 10.0
"""Seconds after which the disk is asked again, whatever is known."""
_MOST = 10_000


@implementer(ITagStore)
class LocalTagStore:
    """Tags as links, each confirmed when it was last modified.

    A tag that everybody asks for is not read by a thread each time: whether a file has changed that was
    read seconds ago is known without the disk, and seen whoever has changed it.
    """

    def __init__(self, root: Path, clock: IReactorTime, in_thread: RunInThread) -> None:
        self._root = root
        self._clock = clock
        self._in_thread = in_thread
        self._read: TTLCache[tuple[Repository, Tag], links.StoredLink] = TTLCache(clock, _MOST)

    async def get(self, repository: Repository, tag: Tag) -> TagEntry | None:
        """See ``ITagStore``."""
        known = self._read.get((repository, tag))
        if known is not None and known.is_current():
            return known.tagged
        link = await self._in_thread(partial(links.find_link, self._root / layout.current(repository, tag)))
        if link is None:
            self._read.drop((repository, tag))
            return None
        self._read.put((repository, tag), link, READ_AGAIN)
        return link.tagged

    async def put(self, repository: Repository, tag: Tag, digest: Digest) -> None:
        """See ``ITagStore``; where the disk takes no link the tag names what it named before."""
        await self.note(repository, tag, TagEntry(digest, self._clock.seconds()))

    async def note(self, repository: Repository, tag: Tag, tagged: TagEntry) -> None:
        """Notes what the tag was confirmed to name, and when; in the same way."""
        putting = self._in_thread(partial(self._put, repository, tag, tagged.digest, tagged.confirmed))
        try:
            await putting
        except OSError as error:
            _log.error(
                "{repository}:{tag} cannot be noted: {error}", repository=repository, tag=tag, error=error
            )

    async def forget(self, repository: Repository, tag: Tag) -> None:
        """See ``ITagStore``."""
        directory = self._root / layout.tag(repository, tag)
        await self._in_thread(partial(links.forget_tag, directory, self._root))

    async def forget_named(self, repository: Repository, digest: Digest) -> None:
        """See ``ITagStore``."""
        await self._in_thread(
            partial(links.forget_named, self._root / layout.tags(repository), digest, self._root)
        )

    def _put(self, repository: Repository, tag: Tag, digest: Digest, now: float) -> None:
        links.write_link(self._root / layout.indexed(repository, tag, digest), digest, self._root, now)
        links.write_link(self._root / layout.current(repository, tag), digest, self._root, now)


@implementer(IDocumentStore)
class LocalDocumentStore:
    """Documents as files, evicted like contents when they have not been used for long."""

    def __init__(self, root: Path, clock: IReactorTime, in_thread: RunInThread) -> None:
        self._root = root
        self._clock = clock
        self._in_thread = in_thread

    async def read(self, name: str) -> bytes | None:
        """See ``IDocumentStore``."""
        return await self._in_thread(partial(self._read, name, self._clock.seconds()))

    async def write(self, name: str, data: bytes) -> None:
        """See ``IDocumentStore``; where the disk does not take it it is what it was before."""
        path, writing = self._root / layout.document(name), self._root / layout.WRITING
        try:
            await self._in_thread(
                partial(atomic_file.replace_file, path, data, writing, self._clock.seconds())
            )
        except OSError as error:
            _log.error("{name} cannot be written: {error}", name=name, error=error)

    def _read(self, name: str, now: float) -> bytes | None:
        path = self._root / layout.document(name)
        found = atomic_file.read_small_file(path)
        if found is None:
            return None
        files.touch(path, found.modified, now)
        return found.data
