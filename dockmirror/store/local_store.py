"""The store on a local disk: contents, tags and documents."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from zlib import crc32

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..concurrency.coroutines import RunInThread, TTLCache, shield
from ..interfaces import ContentKind, IContentStore, IDocumentStore, IStoredContent, ITagStore, TagEntry
from ..oci.digest import Digest
from ..oci.request import Repository, Tag
from . import files, layout
from .file_body import FileReader, OpenFile, SharedFile, StoredBytes
from .files import is_sealed, seal, touch_sealed
from .store_directory import share_file
from .store_files import (
    ContentDeleted,
    StoredLink,
    is_stored,
    link_content,
    links_to,
    open_file,
    read_stored_link,
    read_verified,
    remove_link,
    remove_tag,
    remove_tags_of,
    set_tag,
    verify_or_delete,
    write_link,
)

_MAX_INLINE = {ContentKind.BLOB: 64 * 1024, ContentKind.MANIFEST: 4 * 1024 * 1024}
"""Contents up to this size are read and verified whenever they are opened."""

_VERIFY_ATTEMPTS = 3
"""Attempts to verify a file that is modified meanwhile."""
_MAX_REMEMBERED = 10_000
"""Verified files that cannot be sealed."""

_log = Logger()


@implementer(IContentStore)
@define(eq=False)
class LocalContentStore:
    """Contents in a directory that several processes may share.

    Small contents are verified whenever they are opened, larger ones once, when they are opened for the first
    time after their file was written, and sealed; corrupt files are deleted.  A file that cannot be sealed,
    since it belongs to another user or its file system stores no fractions of a second, is verified once by
    each process.

    :param on_added: called with the number of bytes that were added; a negative one if a corrupt file was
        deleted.
    :param group: may read the files of blobs that are opened, for a proxy in front that sends them.
    """

    _root: Path
    _clock: IReactorTime
    _in_thread: RunInThread
    _on_added: Callable[[int], None] = lambda _: None
    _group: int | None = None
    _unsealed: dict[Digest, files.Version] = field(factory=dict, init=False)
    _is_sharing_logged: bool = field(default=False, init=False)

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        """Open the content; a read error counts as absence."""
        opening = partial(self._open, repository, digest, kind, self._clock.seconds())
        return await shield(self._open_intact(digest, opening), late=_close_late)

    async def holds(self, digest: Digest) -> bool:
        return await self._in_thread(partial(is_stored, self._root / layout.data(digest), digest))

    async def peek(self, digest: Digest) -> IStoredContent | None:
        """See ``IContentStore``; as the file stands, neither verified nor noted as used."""
        return await shield(self._in_thread(partial(self._peek, digest)), late=_close_late)

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        """Link the content; a write error counts as absence."""
        linking = self._in_thread(partial(self._link, repository, digest, kind, self._clock.seconds()))
        try:
            return await linking
        except OSError as error:
            _log.error("{digest} cannot be linked: {error}", digest=digest, error=error)
            return False

    async def add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> bool:
        now = self._clock.seconds()
        self._on_added(await self._in_thread(partial(self._add, repository, digest, kind, data, now)))
        return True

    def count_deleted(self, deleted: ContentDeleted) -> None:
        """Count the bytes that the deletion of a corrupt file has freed."""
        self._on_added(-deleted.freed)

    async def unlink(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        link = self._root / layout.link(repository, digest, kind)
        await self._in_thread(partial(remove_link, link, self._root))

    async def _open_intact(
        self, digest: Digest, opening: Callable[[], IStoredContent | None]
    ) -> IStoredContent | None:
        try:
            return await self._in_thread(opening)
        except ContentDeleted as deleted:
            _log.error("{reason}", reason=str(deleted))
            self.count_deleted(deleted)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            _log.error("{digest} cannot be read: {error}", digest=digest, error=error)
        return None

    def _open(
        self, repository: Repository, digest: Digest, kind: ContentKind, now: float
    ) -> IStoredContent | None:
        if not links_to(self._root / layout.link(repository, digest, kind), digest):
            return None
        return self._open_file(digest, kind, now)

    def _open_file(self, digest: Digest, kind: ContentKind, now: float) -> IStoredContent | None:
        path = self._root / layout.data(digest)
        with ExitStack() as closing:
            file = open_file(path)
            closing.callback(os.close, file)
            status = os.fstat(file)
            if status.st_size <= _MAX_INLINE[kind]:
                content = read_verified(path, file, digest)
                files.touch(file, status.st_mtime, now)
                return StoredBytes(content)
            is_known = is_sealed(status) or self._unsealed.get(digest) == files.version(status)
            verified = status if is_known else self._verify_unchanged(path, file, digest)
            if verified is None:
                return None
            status, shared = verified, self._share(digest)
            if is_known:
                self._touch_verified(digest, file, status, now)
            else:
                self._seal_or_remember(digest, file, status, now)
            closing.pop_all()
            return OpenFile(FileReader(file, self._in_thread), status.st_size, self._clock, shared)

    def _share(self, digest: Digest) -> SharedFile | None:
        """Let the group read a blob's file; return its name, or None if the group may not read it.

        A file whose version is remembered has its mode by then: the version changes with it.
        """
        if self._group is None:
            return None
        shared = SharedFile(self._root / layout.BLOBS, layout.data(digest).relative_to(layout.BLOBS))
        try:
            share_file(shared.blobs, shared.name, self._group)
        except FileNotFoundError:  # evicted
            return None
        except OSError as error:
            if not self._is_sharing_logged:
                self._is_sharing_logged = True
                _log.error(
                    "{path} cannot be given to the group of 'cache_group', so the mirror sends such blobs"
                    " itself: {error}. Run the mirror as the owner of its cache",
                    path=error.filename,
                    error=error.strerror,
                )
            return None
        return shared

    def _peek(self, digest: Digest) -> IStoredContent | None:
        data = self._root / layout.data(digest)
        try:
            file = open_file(data) if is_stored(data, digest) else None
        except OSError:
            return None
        if file is None:
            return None
        return OpenFile(FileReader(file, self._in_thread), os.fstat(file).st_size, self._clock)

    def _touch_verified(self, digest: Digest, file: int, status: os.stat_result, now: float) -> None:
        files.touch(file, status.st_mtime, now)
        if not is_sealed(status):
            self._remember(digest, file, status)

    def _seal_or_remember(self, digest: Digest, file: int, status: os.stat_result, now: float) -> None:
        try:
            was_sealed = seal(file, now, status.st_size)
        except OSError:
            was_sealed = False
        if not was_sealed:
            self._remember(digest, file, status)

    def _remember(self, digest: Digest, file: int, verified: os.stat_result) -> None:
        """Remember a verified file in its present version, whose times are those of its use."""
        if len(self._unsealed) >= _MAX_REMEMBERED:
            self._unsealed.clear()
        present = os.fstat(file)
        if present.st_size == verified.st_size:
            self._unsealed[digest] = files.version(present)

    def _verify_unchanged(self, path: Path, file: int, digest: Digest) -> os.stat_result | None:
        """Verify a file without a seal; return its status, or None if it changes meanwhile."""
        for _ in range(_VERIFY_ATTEMPTS):
            before = os.fstat(file).st_mtime_ns
            verify_or_delete(path, file, digest)
            after = os.fstat(file)
            if after.st_mtime_ns == before or is_sealed(after):  # sealed by another process
                return after
        return None

    def _link(self, repository: Repository, digest: Digest, kind: ContentKind, now: float) -> bool:
        data, link = self._root / layout.data(digest), self._root / layout.link(repository, digest, kind)
        if not is_stored(data, digest):
            return False
        with suppress(OSError):  # an eviction that has chosen it must see the use
            touch_sealed(data, now)
        write_link(link, digest, self._root, now)
        if not is_stored(data, digest):
            remove_link(link, self._root)
            return False
        return True

    def _add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes, now: float) -> int:
        path = self._root / layout.data(digest)
        grown = 0 if is_stored(path, digest) else len(data)
        files.replace_file(path, data, self._root / layout.TEMPORARY, now)
        link_content(self._root, repository, digest, kind, now)
        return grown


def _close_late(opened: IStoredContent | None) -> None:
    if opened is not None:
        opened.close()


REREAD_INTERVAL = 10.0
"""Seconds after which a tag is read again even if its file seems unchanged."""
_MAX_CACHED_TAGS = 10_000


@implementer(ITagStore)
class LocalTagStore:
    """Tags as links; a link's modification time tells when the tag was last confirmed.

    Links are cached: a ``stat`` call shows whether any process has changed one, without a thread.
    """

    def __init__(self, root: Path, clock: IReactorTime, in_thread: RunInThread) -> None:
        self._root = root
        self._clock = clock
        self._in_thread = in_thread
        self._links: TTLCache[tuple[Repository, Tag], StoredLink] = TTLCache(clock, _MAX_CACHED_TAGS)

    async def get(self, repository: Repository, tag: Tag) -> TagEntry | None:
        cached = self._links.get((repository, tag))
        if cached is not None and cached.is_current():
            return cached.entry
        link = await self._in_thread(partial(read_stored_link, self._root / layout.tag_link(repository, tag)))
        if link is None:
            self._links.drop((repository, tag))
            return None
        self._links.put((repository, tag), link, REREAD_INTERVAL)
        return link.entry

    async def put(self, repository: Repository, tag: Tag, digest: Digest, age: float = 0.0) -> None:
        """Set the tag; if the disk fails, the tag keeps its previous target."""
        await self.record(repository, tag, TagEntry(digest, self._clock.seconds() - age))

    async def record(self, repository: Repository, tag: Tag, entry: TagEntry) -> None:
        """Set the tag with this time of confirmation; if the disk fails, it keeps its previous target."""
        storing = self._in_thread(
            partial(set_tag, self._root, repository, tag, entry.digest, entry.confirmed)
        )
        try:
            await storing
        except OSError as error:
            _log.error(
                "{repository}:{tag} cannot be stored: {error}", repository=repository, tag=tag, error=error
            )

    async def forget(self, repository: Repository, tag: Tag) -> None:
        directory = self._root / layout.tag_directory(repository, tag)
        await self._in_thread(partial(remove_tag, directory, self._root))

    async def forget_named(self, repository: Repository, digest: Digest) -> None:
        await self._in_thread(
            partial(
                remove_tags_of,
                self._root / layout.tags_directory(repository),
                digest,
                self._root,
            )
        )


LOCK_FILES = 64
"""Files; tags whose names hash to the same one are refreshed one after the other."""


@define(eq=False)
class TagLocks:
    """Lets one process at a time refresh a tag.

    :param root: the cache directory.
    """

    _root: Path
    _in_thread: RunInThread

    async def claim(self, tag: object) -> Callable[[], None] | None:
        """Return a function that ends the turn of this process, or None if another one has it.

        If no lock can be had, as on a full disk, every process has the turn.
        """
        path = self._root / layout.tag_refresh_lock(crc32(str(tag).encode()) % LOCK_FILES)
        try:
            lock = await shield(self._in_thread(partial(files.lock, path)), late=_close_lock)
        except OSError:
            return lambda: None
        return None if lock is None else partial(os.close, lock)


def _close_lock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


@implementer(IDocumentStore)
@define(eq=False)
class LocalDocumentStore:
    """Documents as files; ``may_evict_document`` says which of them are evicted."""

    _root: Path
    _clock: IReactorTime
    _in_thread: RunInThread

    async def read(self, name: str) -> bytes | None:
        return await self._in_thread(partial(self._read_file, name, self._clock.seconds()))

    async def write(self, name: str, data: bytes) -> None:
        """Replace the document; if the disk fails, the previous one stays."""
        await self._write_if(lambda: True, name, data)

    async def replace(self, name: str, old: bytes | None, new: bytes, is_pending: Callable[[], bool]) -> None:
        """Replace the document if it is still the old one, and no other write of it is pending."""
        now = self._clock.seconds()
        await self._write_if(lambda: self._read_file(name, now) == old and not is_pending(), name, new)

    async def _write_if(self, condition: Callable[[], bool], name: str, data: bytes) -> None:
        path, temporary = self._root / layout.document(name), self._root / layout.TEMPORARY
        writing = partial(files.replace_file, path, data, temporary, self._clock.seconds())
        try:
            await self._in_thread(lambda: writing() if condition() else None)
        except OSError as error:
            _log.error("{name} cannot be written: {error}", name=name, error=error)

    def _read_file(self, name: str, now: float) -> bytes | None:
        path = self._root / layout.document(name)
        document = files.read_small_file(path)
        if document is None:
            return None
        files.touch(path, document.modified, now)
        return document.data


@frozen
class LocalStore:
    """The stores in a directory."""

    root: Path
    contents: LocalContentStore
    tags: LocalTagStore
    documents: LocalDocumentStore

    @classmethod
    def open(
        cls,
        root: Path,
        clock: IReactorTime,
        in_thread: RunInThread,
        on_added: Callable[[int], None] = lambda _: None,
        group: int | None = None,
    ) -> LocalStore:
        """Open the stores; see ``LocalContentStore`` for the parameters."""
        return cls(
            root,
            LocalContentStore(root, clock, in_thread, on_added, group),
            LocalTagStore(root, clock, in_thread),
            LocalDocumentStore(root, clock, in_thread),
        )
