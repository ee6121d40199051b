"""The file of a blob that is fetched in blocks, in any order, by any number of processes on the directory.

The blocks lie at their offsets, in a sparse file.  After them come the map, with one entry for each block,
and a footer with the size and the entity tag of the blob.  An entry is the checksum of its block: after a
power failure the map may be on the disk and the block not.

The rules of locking, beside those of ``partial_file``:

1. The locks are those of ``F_OFD_SETLK``: they belong to the open file, and end with the process.  One byte
   is locked for each claimed block, and another one by the process that makes the file.
2. Only the process that claims a block writes it, and its entry after it, before the claim is released.
3. A claim counts only while the file has its name and the block has no entry, both of which are checked after
   the lock was taken.
4. Only the process that has locked all blocks and the creation byte hashes the file, renames it, or marks
   the blob as corrupt.
5. A file whose blob has changed at the upstream loses its name.  It is written to no more.

These calls block, but not for long; ``verify``, ``commit`` and ``mark_corrupt`` do.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
from collections.abc import Set
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from zlib import crc32

from ...concurrency.coroutines import RunInThread
from ...oci.consent import SAMPLE
from ...oci.digest import Digest
from ...oci.header_fields import ContentRange
from .. import files, layout
from ..file_body import FileReader
from .context import BlobVersion
from .partial_file import open_finished

BLOCK = 64 * 1024
"""Bytes of a block; the last one of a blob may be shorter."""
CORRUPT_BLOCKS_TTL = 600.0
"""Seconds for which a blob is fetched for each reader by itself after its blocks were corrupt."""

_READINGS = 64
"""Readings of the map while all blocks of a blob are fetched."""
_ENTRY = struct.Struct(">II")
_PRESENT = 1
_FOOTER = 128
_MAGIC = "dockmirror blocks "
_FORMAT = "2"
_CORRUPT = b"corrupt\n"
_LOCK = struct.Struct("hhqqi4x")  # struct flock
_CREATION = 1 << 40
_UNKNOWN = "-"


class BlockFileState(Enum):
    """The state of an open file of blocks."""

    NEW = auto()  # it has no footer yet
    INCOMPLETE = auto()
    COMPLETE = auto()  # it is the finished blob
    FOREIGN = auto()  # its footer has a format that this version of the mirror does not know
    CORRUPT = auto()  # its bytes did not match the digest, or those of the file that it replaces
    UNLINKED = auto()  # it has no name any more


class BlockFile:
    """An open file of blocks, or the finished blob.

    :ivar version: the version of its blob; None before the file is made.
    :ivar reader: reads it, and keeps it open while a thread uses it.
    """

    def __init__(self, root: Path, registry: str, digest: Digest, in_thread: RunInThread) -> None:
        """Open the finished blob, or else the file of its blocks, which is made if necessary.

        :raises OSError: if it cannot be opened or made.
        """
        self._root = root
        self._path = root / layout.growing_blocks(registry, digest)
        self._blob = root / layout.data(digest)
        self.version: BlobVersion | None = None
        self._present: set[int] = set()
        self._uses_left = 0  # calls of ``present`` until the map is read again
        finished = open_finished(self._blob)
        size = None if finished is None else files.sealed_size(finished)
        if finished is not None and size is not None:
            self.descriptor = finished
            self.version = BlobVersion(size)
        else:
            if finished is not None:
                os.close(finished)  # somebody has just written to it
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self.descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self.reader = FileReader(self.descriptor, in_thread)

    def state(self, now: float) -> BlockFileState:
        """Return the state, and read the version once it is there."""
        status = os.fstat(self.descriptor)
        if self._is_named(self._path, status):
            if _is_mark(self.descriptor, status):
                is_recent = 0 <= now - status.st_mtime < CORRUPT_BLOCKS_TTL
                return BlockFileState.CORRUPT if is_recent else BlockFileState.UNLINKED
            if self.version is None:
                footer = self._read_footer(status.st_size)
                if footer[:1] not in ([], [_FORMAT]):
                    return BlockFileState.FOREIGN
                self.version = _parse_version(footer[1:], status.st_size)
            return BlockFileState.NEW if self.version is None else BlockFileState.INCOMPLETE
        if self._is_named(self._blob, status) and files.is_sealed(os.fstat(self.descriptor)):  # by now
            if self.version is None:  # another process has finished it since it was opened
                self.version = BlobVersion(status.st_size)
            return BlockFileState.COMPLETE
        return BlockFileState.CORRUPT if self._was_marked() else BlockFileState.UNLINKED

    def is_superseded(self) -> bool:
        """Return whether the finished blob is there, while this is the file of its blocks."""
        finished = open_finished(self._blob)
        if finished is not None:
            os.close(finished)
        return finished is not None

    def is_torn(self) -> bool:
        """Return whether a process died while it made or finished this file.

        Call it in state NEW only, with the creation claimed.
        """
        return os.fstat(self.descriptor).st_size > 0

    def claim_creation(self) -> bool:
        """Let this process make the file; False if another one does."""
        return self._lock(_CREATION, 1)

    def release_creation(self) -> None:
        self._unlock(_CREATION, 1)

    def create(self, version: BlobVersion, wanted: range) -> range:
        """Make the file, without any block; claim the blocks that are fetched first, and return them.

        :param wanted: these blocks, as far as the blob reaches.
        :raises OSError: if that fails.
        """
        run = range(wanted.start, min(wanted.stop, _blocks(version.size)))
        self._lock(run.start, len(run))
        os.ftruncate(self.descriptor, version.size + _blocks(version.size) * _ENTRY.size)
        self._write_footer(version)
        return run

    def accept(self, version: BlobVersion) -> bool:
        """Return whether blocks of this version belong to the file; an entity tag that it lacks is entered.

        :raises OSError: if that fails.
        """
        is_accepted = self._version.accepts(version)
        if is_accepted and self._version.etag is None and version.etag is not None:
            self._write_footer(version)
        return is_accepted

    @property
    def blocks(self) -> int:
        return _blocks(self._version.size)

    def end(self, block: int) -> int:
        """Return the offset of a block's end."""
        return min(self._version.size, (block + 1) * BLOCK)

    def sample(self, block: int) -> ContentRange:
        """Return a part of a block to compare with the upstream's, at random."""
        first, end = block * BLOCK, self.end(block)
        first += secrets.randbelow(max(1, end - first - SAMPLE + 1))
        return ContentRange(first, min(first + SAMPLE, end) - 1, self._version.size)

    def claim(self, block: int) -> bool:
        """Claim a missing block; False if it is there, another process claims it, or the file has no name."""
        if not self._lock(block, 1):
            return False
        if self._has_name() and not self.has(block):
            return True
        self.release(block)
        return False

    def claim_all(self) -> bool:
        """Claim all blocks, which are there, and the making of the file; False while another process has one.

        While a process finishes the file, its map is already cut off: it looks like a new one.
        """
        if self._lock(0, self.blocks) and self.claim_creation() and self._has_name():
            return True
        self.release_all()
        return False

    def release(self, block: int) -> None:
        self._unlock(block, 1)

    def release_all(self) -> None:
        self._unlock(0, 0)

    def has(self, block: int) -> bool:
        """Return whether a block is there, as far as the map says."""
        return self._entry(block) is not None

    def present(self) -> Set[int]:
        """Return the blocks that are there.

        Blocks of other processes may be missing from it: the map of a large blob is not read each time.
        """
        if self._uses_left:
            self._uses_left -= 1
        else:
            self._uses_left = self.blocks // _READINGS
            self._present = self.read_map()
        return self._present

    def read_map(self) -> set[int]:
        """Return the blocks that are there now."""
        entries = os.pread(self.descriptor, self.blocks * _ENTRY.size, self._version.size)
        whole = len(entries) - len(entries) % _ENTRY.size
        return {block for block, entry in enumerate(_ENTRY.iter_unpack(entries[:whole])) if entry[0]}

    def write(self, data: bytes, offset: int) -> None:
        """Write bytes of a claimed block.

        :raises OSError: if that fails; a part may have been written.
        """
        files.write_at(self.descriptor, data, offset)

    def record(self, block: int, checksum: int) -> None:
        """Enter a claimed block that was written, and release it.

        :raises OSError: if that fails.
        """
        self._write_entry(block, _PRESENT, checksum)
        self._present.add(block)
        self.release(block)

    def verify(self, block: int) -> bytes | None:
        """Return a block that matches its checksum; if it does not, it is missing again.

        :raises OSError: if it cannot be read.
        """
        entry = self._entry(block)
        if entry is None:
            return None
        first, end = block * BLOCK, self.end(block)
        data = os.pread(self.descriptor, end - first, first)
        if crc32(data) == entry:
            return data
        self._present.discard(block)
        if self._lock(block, 1):
            if self._has_name():
                self._write_entry(block, 0, 0)
            self.release(block)
        return None

    def commit(self) -> bool:
        """Make the file, whose blocks are all claimed and match the digest, the finished blob.

        It is synced while it still has its map, which other processes need if this one dies.

        :return: False if the file has no name any more.
        :raises OSError: if that fails.
        """
        size = self._version.size
        os.fsync(self.descriptor)
        os.ftruncate(self.descriptor, size)
        with suppress(OSError):  # then it is read once more when it is opened
            files.seal(self.descriptor, os.fstat(self.descriptor).st_mtime, size)
        if not self._has_name():
            return False
        files.publish(self._path, self._blob)
        return True

    def mark_corrupt(self, now: float) -> None:
        """Replace the file, whose blocks are all claimed, by the mark of a corrupt blob."""
        if self._has_name():
            files.replace_file(self._path, _CORRUPT, self._root / layout.TEMPORARY, now)

    def touch(self, now: float) -> None:
        """Record that the blocks are used: they are evicted before everything else that is not."""
        files.touch(self.descriptor, os.fstat(self.descriptor).st_mtime, now)

    def close(self) -> None:
        self.reader.close()

    def unlink(self) -> None:
        """Take the file's name away, if it still has one."""
        if self._has_name():
            files.remove(self._path)

    @property
    def _version(self) -> BlobVersion:
        assert self.version is not None
        return self.version

    def _entry(self, block: int) -> int | None:
        """Return the checksum of a block; None if the block is missing."""
        version = self._version
        entry = os.pread(self.descriptor, _ENTRY.size, version.size + block * _ENTRY.size)
        if len(entry) < _ENTRY.size:  # the blob is finished, and its file has no map any more
            return None
        present, checksum = _ENTRY.unpack(entry)
        return checksum if present else None

    def _write_entry(self, block: int, present: int, checksum: int) -> None:
        entry = _ENTRY.pack(present, checksum)
        os.pwrite(self.descriptor, entry, self._version.size + block * _ENTRY.size)

    def _read_footer(self, length: int) -> list[str]:
        """Return the words of the footer, the first of which is the format; empty while there is none."""
        footer = os.pread(self.descriptor, _FOOTER, max(0, length - _FOOTER)).decode("ascii", "replace")
        is_whole = footer.startswith(_MAGIC) and footer.endswith("\n")
        return footer.removeprefix(_MAGIC).split() if is_whole else []

    def _write_footer(self, version: BlobVersion) -> None:
        footer = f"{_MAGIC}{_FORMAT} {version.size} {version.etag or _UNKNOWN}".ljust(_FOOTER - 1) + "\n"
        os.pwrite(self.descriptor, footer.encode(), version.size + _blocks(version.size) * _ENTRY.size)
        self.version = version

    def _was_marked(self) -> bool:
        try:
            marking = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return _is_mark(marking, os.fstat(marking))
        finally:
            os.close(marking)

    def _has_name(self) -> bool:
        return self._is_named(self._path, os.fstat(self.descriptor))

    def _is_named(self, path: Path, status: os.stat_result) -> bool:
        try:
            return os.path.samestat(status, os.stat(path))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _lock(self, first: int, count: int) -> bool:
        try:
            fcntl.fcntl(self.descriptor, fcntl.F_OFD_SETLK, _lock_of(fcntl.F_WRLCK, first, count))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _unlock(self, first: int, count: int) -> None:
        fcntl.fcntl(self.descriptor, fcntl.F_OFD_SETLK, _lock_of(fcntl.F_UNLCK, first, count))


def _parse_version(words: list[str], length: int) -> BlobVersion | None:
    """Return the version in the words of a footer; None if it does not belong to a file of that length."""
    try:
        size, etag = words
        version = BlobVersion(int(size), None if etag == _UNKNOWN else etag)
    except ValueError:
        return None
    return version if length == version.size + _blocks(version.size) * _ENTRY.size + _FOOTER else None


def _blocks(size: int) -> int:
    return -(-size // BLOCK)


def _lock_of(kind: int, first: int, count: int) -> bytes:
    return _LOCK.pack(kind, os.SEEK_SET, first, count, 0)


def _is_mark(descriptor: int, status: os.stat_result) -> bool:
    return status.st_size == len(_CORRUPT) and os.pread(descriptor, len(_CORRUPT), 0) == _CORRUPT
