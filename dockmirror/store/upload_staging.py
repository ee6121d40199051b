"""Copies of blobs that clients push, staged on disk while they pass and committed if their digest is right.

The parts of one upload may reach different processes, which append to the same file. A copy that is
unused for an hour is deleted with other temporary files. All copies together are limited in bytes and files;
what exceeds the limits is not copied.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from attrs import define, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..concurrency.coroutines import RunInThread, shield
from ..interfaces import IStagedUpload, IUploadStaging
from ..oci.digest import Digest
from . import files, layout
from .downloads.partial_file import PartialFile, PartialPaths
from .file_body import FileReader
from .writer import AsyncFileWriter, BackgroundHasher

MAX_BUFFERED = 8 * 1024 * 1024
"""Bytes that may wait for the disk; a copy that exceeds it is given up, since no push waits for the disk."""

MAX_STAGED_FILES = 1000
"""Copies that may exist at the same time."""
_CHECK_INTERVAL = 4 * 1024 * 1024
"""Bytes of a copy after which the size of all copies is checked again."""
_PREFIX = "push-"
_log = Logger()


@implementer(IUploadStaging)
@define(eq=False)
class LocalUploadStaging:
    """Copies in a store's directory.

    :param on_committed: called with the number of bytes that a committed copy adds to the store.
    :param limit: returns the number of bytes that all copies together may have.
    """

    _root: Path
    _in_thread: RunInThread
    _clock: IReactorTime
    _on_committed: Callable[[int], None]
    _limit: Callable[[], int]

    async def open(self, name: str, offset: int) -> IStagedUpload | None:
        path = self._path(name)
        limit = _Limit(path.parent, self._limit())
        try:
            opening = shield(self._in_thread(partial(_open, path, offset, limit)), late=os.close)
            file = await opening
        except OSError as error:
            _log.warn("a pushed blob is not cached: {error}", error=str(error))
            return None
        copy, reader = PartialFile(PartialPaths(path, path, path), file), FileReader(file, self._in_thread)
        return _StagedUpload(copy, reader, offset, self._clock, limit, partial(self.drop, name))

    async def commit(self, name: str, digest: Digest) -> bool:
        path = self._path(name)
        place = PartialPaths(path, path.with_suffix(layout.SIZE), self._root / layout.data(digest))
        try:
            file = await self._in_thread(partial(_open_locked, path))
        except OSError:
            await self.drop(name)
            return False
        reader, copy = FileReader(file, self._in_thread), PartialFile(place, file)
        is_committed = False
        try:
            length = copy.length()
            if await BackgroundHasher(digest, reader).matches(length):
                await self._in_thread(copy.sync)
                await self._in_thread(copy.commit)
                is_committed = True
                self._on_committed(length)
            else:
                _log.warn("a pushed blob is not cached: its bytes do not match {digest}", digest=str(digest))
        except OSError as error:
            _log.error("a pushed blob cannot be cached: {error}", error=str(error))
        finally:
            reader.close()  # nothing may be awaited here: the process may be ending
        await self.drop(name)
        return is_committed

    async def drop(self, name: str) -> None:
        try:
            await self._in_thread(partial(files.remove, self._path(name)))
        except OSError as error:
            _log.warn("the copy of a pushed blob stays for an hour: {error}", error=str(error))

    def _path(self, name: str) -> Path:
        return self._root / layout.TEMPORARY / f"{_PREFIX}{name}"


@frozen
class _Limit:
    """The limit of all copies in a directory, in bytes."""

    directory: Path
    size: int

    def check(self) -> None:
        """Check the number of copies and their size.

        :raises OSError: if one of them reaches its limit.
        """
        with os.scandir(self.directory) as entries:
            copies = [entry for entry in entries if entry.name.startswith(_PREFIX)]
        if len(copies) > MAX_STAGED_FILES or sum(map(_file_size, copies)) >= self.size:
            raise OSError("the pushes under way exceed the limit of the cache")


def _file_size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:
        return 0


def _open(path: Path, offset: int, limit: _Limit) -> int:
    """Open the copy and truncate it to the offset; it is created at offset 0.

    :raises OSError: if it is shorter, another process writes to it or the copies reach a limit.
    """
    files.make_directory(path.parent)
    limit.check()
    file = _open_locked(path, 0 if offset else os.O_CREAT)
    try:
        if os.fstat(file).st_size < offset:
            raise OSError(f"the copy has fewer than {offset} bytes")
        os.ftruncate(file, offset)
    except BaseException:
        os.close(file)
        raise
    return file


def _open_locked(path: Path, flags: int = 0) -> int:
    """Open and lock the copy until it is closed.

    :raises OSError: if it is missing, or locked or just committed by another process.
    """
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(file), os.stat(path)):
            raise OSError("another process has committed it")
    except BaseException:
        os.close(file)
        raise
    return file


@implementer(IStagedUpload)
class _StagedUpload:
    def __init__(
        self,
        copy: PartialFile,
        reader: FileReader,
        offset: int,
        clock: IReactorTime,
        limit: _Limit,
        drop: Callable[[], Awaitable[None]],
    ) -> None:
        self._reader = reader
        self._writer = AsyncFileWriter(copy.write, reader, offset, clock, lambda: None, self._fail)
        self._limit = limit
        self._drop = drop
        self._unchecked = 0
        self._failed = False

    def write(self, data: bytes) -> None:
        if self._failed:
            return
        try:
            self._writer.write(data)
            self._check_size(len(data))
        except OSError as error:
            self._fail(error)
        if self._writer.pending > MAX_BUFFERED:
            self._fail(OSError("the disk is too slow"))

    async def finish(self) -> int | None:
        await self._writer.flushed()
        if self._failed:
            await self._drop()
        self._reader.close()
        return None if self._failed else self._writer.length

    def _check_size(self, length: int) -> None:
        """Check the size of this copy and of all copies.

        :raises OSError: if one of them exceeds the limit.
        """
        if self._writer.length + self._writer.pending > self._limit.size:
            raise OSError("it exceeds the limit of the cache")
        self._unchecked += length
        if self._unchecked >= _CHECK_INTERVAL:
            self._unchecked = 0
            self._limit.check()

    def _fail(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            _log.warn("a pushed blob is not cached: {error}", error=str(error))
