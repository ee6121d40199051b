"""Copies of blobs that clients push, on a disk: written while they pass, kept when they prove to be right.

A copy lies among the files that are on their way to a name, in which the parts of one upload follow each
other, whichever process they reach.  One that nobody goes on with for an hour is dropped with dead writers'.
All of them together take a limited number of bytes and files: what would be more is not copied.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..interfaces import IStagedUpload, IUploadStaging
from ..oci.digest import Digest
from . import files, layout
from .downloads.partial_file import PartialFile, PartialPaths
from .file_reader import FileReader
from .threads import RunInThread, shield
from .writer import AsyncFileWriter, BackgroundHasher

MAX_BUFFERED = 8 * 1024 * 1024
"""Bytes that may wait for the disk: no push waits for it, and what it does not take in time is not kept."""

MAX_STAGED_FILES = 1000
"""Files of copies that there may be."""
_LOOKED_AGAIN = 4 * 1024 * 1024
"""Bytes of one copy after which it is seen how large all of them are."""
_PREFIX = "push-"
_log = Logger()


@implementer(IUploadStaging)
class LocalUploadStaging:
    """Copies in a store's directory.

    :param grown: is told how many bytes are held more.
    :param most: tells how many bytes all copies together may have.
    """

    def __init__(
        self,
        root: Path,
        in_thread: RunInThread,
        clock: IReactorTime,
        grown: Callable[[int], None],
        most: Callable[[], int],
    ) -> None:
        self._root = root
        self._in_thread = in_thread
        self._clock = clock
        self._grown = grown
        self._most = most

    async def open(self, name: str, offset: int) -> IStagedUpload | None:
        """See ``IUploadStaging``."""
        path, most = self._path(name), self._most()
        try:
            opening = shield(self._in_thread(partial(_open, path, offset, most)), late=os.close)
            file = await opening
        except OSError as error:
            _log.warn("a push is not kept: {error}", error=str(error))
            return None
        return _StagedUpload(
            path, FileReader(file, self._in_thread), file, offset, self._clock, most, self.drop
        )

    async def commit(self, name: str, digest: Digest) -> bool:
        """See ``IUploadStaging``."""
        path = self._path(name)
        place = PartialPaths(path, path.with_suffix(layout.SIZE), self._root / layout.data(digest))
        try:
            file = await self._in_thread(partial(_locked, path))
        except OSError:
            await self.drop(name)
            return False
        reader, copy = FileReader(file, self._in_thread), PartialFile(place, file)
        try:
            length = copy.length()
            if not await BackgroundHasher(digest, reader).matches(length):
                _log.warn("a push was not kept: what came was not {digest}", digest=str(digest))
                return False
            await self._in_thread(copy.sync)
            await self._in_thread(copy.commit)
        except OSError as error:
            _log.error("a push could not be kept: {error}", error=str(error))
            return False
        else:
            self._grown(length)
            return True
        finally:
            reader.close()
            await self.drop(name)

    async def drop(self, name: str) -> None:
        """See ``IUploadStaging``."""
        try:
            await self._in_thread(partial(files.remove, self._path(name)))
        except OSError as error:
            _log.warn("what was copied of a push stays for an hour: {error}", error=str(error))

    def _path(self, name: str) -> Path:
        return self._root / layout.TEMPORARY / f"{_PREFIX}{name}"


def _check_room(directory: Path, most: int) -> None:
    """:raises OSError: when there are as many copies, or bytes of them, as there may be."""
    with os.scandir(directory) as entries:
        copies = [entry for entry in entries if entry.name.startswith(_PREFIX)]
    if len(copies) > MAX_STAGED_FILES or sum(map(_size, copies)) >= most:
        raise OSError("the pushes under way are too many for the cache")


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:
        return 0


def _open(path: Path, offset: int, most: int) -> int:
    """The copy with so many bytes of it; made where it is to have none.

    :raises OSError: when there are fewer, another process is writing to it, or there is no room.
    """
    files.make_directory(path.parent)
    _check_room(path.parent, most)
    file = _locked(path, 0 if offset else os.O_CREAT)
    try:
        if os.fstat(file).st_size < offset:
            raise OSError(f"of a push there are less than {offset} bytes")
        os.ftruncate(file, offset)
    except BaseException:
        os.close(file)
        raise
    return file


def _locked(path: Path, flags: int = 0) -> int:
    """The copy, which nobody else writes to or keeps until it is closed.

    :raises OSError: when there is none, or another has it; also when that one has just kept it.
    """
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(file), os.stat(path)):
            raise OSError("another has taken it")
    except BaseException:
        os.close(file)
        raise
    return file


@implementer(IStagedUpload)
class _StagedUpload:
    def __init__(
        self,
        path: Path,
        reader: FileReader,
        file: int,
        offset: int,
        clock: IReactorTime,
        most: int,
        drop: Callable[[str], Awaitable[None]],
    ) -> None:
        copy = PartialFile(PartialPaths(path, path, path), file)
        self._path = path
        self._reader = reader
        self._writer = AsyncFileWriter(copy.write, reader, offset, clock, lambda: None, self._give_up)
        self._most = most
        self._drop = drop
        self._unseen = 0
        self._given_up = False

    def write(self, data: bytes) -> None:
        """See ``IStagedUpload``."""
        if self._given_up:
            return
        try:
            self._writer.write(data)
            self._look(len(data))
        except OSError as error:
            self._give_up(error)
        if self._writer.pending > MAX_BUFFERED:
            self._give_up(OSError("the disk does not follow"))

    async def finish(self) -> int | None:
        """See ``IStagedUpload``."""
        await self._writer.flushed()
        if self._given_up:
            await self._drop(self._path.name.removeprefix(_PREFIX))
        self._reader.close()
        return None if self._given_up else self._writer.length

    def _look(self, length: int) -> None:
        """:raises OSError: when this copy, or all together, are too large."""
        if self._writer.length + self._writer.pending > self._most:
            raise OSError("it is too large for the cache")
        self._unseen += length
        if self._unseen >= _LOOKED_AGAIN:
            self._unseen = 0
            _check_room(self._path.parent, self._most)

    def _give_up(self, error: OSError) -> None:
        if not self._given_up:
            self._given_up = True
            _log.warn("a push is not kept: {error}", error=str(error))
