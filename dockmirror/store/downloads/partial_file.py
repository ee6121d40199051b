"""The file of a partial download, shared by all processes on the store's directory.

The rules of locking:

1. Only the process that holds the file's lock writes to it or its metadata, renames it or removes it.
   The lock is that of ``flock``: it belongs to the open file, and ends with the process.  (That of ``lockf``
   would be lost when the process closes any other descriptor of the file.)
2. A lock counts only while the locked file has its name: the process that has locked it compares the inodes,
   and looks whether the finished blob is there, which another may just have committed.
3. A name that was taken away is never given to the same bytes again, except the one under ``blobs/``.  An
   open file that has neither was given up.
4. The finished blob counts only while it is sealed: one that was written to since is fetched anew, and
   replaced.

These calls block, but not for long; ``sync`` does.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, suppress
from enum import Enum
from pathlib import Path

from attrs import frozen

from ...oci.digest import Digest
from ...oci.header_fields import Span
from .. import files, layout
from ..files import seal, sealed_size
from ..store_files import open_file

_UNKNOWN = "-"
_VERIFIED = "verified "


class PartialState(Enum):
    """The state of an open partial file."""

    OWNED = "this process holds its lock"
    LOCKED = "another holds its lock"
    COMPLETE = "it is the finished blob"
    UNLINKED = "it has no name any more: it was given up"


@frozen
class PartialPaths:
    """The paths of a partial file, of its metadata, and of the blob that it becomes."""

    part: Path
    metadata: Path
    blob: Path

    @classmethod
    def of(cls, root: Path, registry: str, digest: Digest) -> PartialPaths:
        """Return the paths for a blob from that registry."""
        part, metadata = layout.growing(registry, digest), layout.growing_size(registry, digest)
        return cls(root / part, root / metadata, root / layout.data(digest))


@frozen
class PartialMetadata:
    """The notes of a partial file's owner, for other processes.

    :ivar size: the blob's size; None if the upstream does not report it.
    :ivar is_verified: the bytes were found right.  The next owner does not rely on it.
    """

    size: int | None
    is_verified: bool = False

    @classmethod
    def read(cls, path: Path) -> PartialMetadata | None:
        """Read the latest metadata; None if there is none. A line without its end is still being written."""
        try:
            lines = path.read_text("ascii").split("\n")[:-1]
            if not lines:
                return None
            if lines[-1].startswith(_VERIFIED):
                return cls(int(lines[-1].removeprefix(_VERIFIED)), is_verified=True)
            return cls(None if lines[0] == _UNKNOWN else int(lines[0]))
        except (FileNotFoundError, ValueError):
            return None


class PartialFile:
    """An open partial file, or the finished blob."""

    def __init__(self, paths: PartialPaths, descriptor: int) -> None:
        self.descriptor = descriptor
        self._paths = paths

    def state(self) -> PartialState:
        """Take the lock if it is free, and return the state."""
        locked = _try_lock(self.descriptor, fcntl.LOCK_EX)
        if self._has_name(self._paths.part):
            return PartialState.OWNED if locked else PartialState.LOCKED
        return PartialState.COMPLETE if self._has_name(self._paths.blob) else PartialState.UNLINKED

    def unlock(self) -> None:
        """Release the lock; closing the file would not, while a thread still reads from it."""
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def length(self) -> int:
        return os.fstat(self.descriptor).st_size

    def sealed_length(self) -> int | None:
        """Return the length; None if the file is not sealed."""
        return sealed_size(self.descriptor)

    def write(self, data: bytes, offset: int) -> None:
        """Write the data.

        :raises OSError: if that fails; a part may have been written.
        """
        files.write_at(self.descriptor, data, offset)

    def write_size(self, size: int | None) -> None:
        """Replace the metadata; before the first byte is written, so that what is read has a size."""
        files.remove(self._paths.metadata)
        with open(self._paths.metadata, "xb") as metadata:
            metadata.write(f"{_UNKNOWN if size is None else size}\n".encode())

    def write_verified_length(self, length: int) -> None:
        """Let readers in other processes finish before the file is synced."""
        with open(self._paths.metadata, "ab") as metadata:
            metadata.write(f"{_VERIFIED}{length}\n".encode())

    def metadata(self) -> PartialMetadata | None:
        """Return the latest metadata.  It belongs to this file only if that has its name afterwards, too."""
        return PartialMetadata.read(self._paths.metadata)

    def sync(self) -> None:
        """Sync the file.

        :raises OSError: if the disk has lost bytes; all that is read from now on may be wrong.
        """
        os.fsync(self.descriptor)

    def commit(self) -> None:
        """Rename a file that is complete, verified and synced: it is the finished blob.

        :raises OSError: if it cannot be renamed, or another file has its name, against the rules.
        """
        if not self._has_name(self._paths.part):
            raise FileNotFoundError(f"{self._paths.part} is another file than the downloaded one")
        files.remove(self._paths.metadata)
        with suppress(OSError):  # then it is read once more when it is opened
            status = os.fstat(self.descriptor)
            seal(self.descriptor, status.st_mtime, status.st_size)
        files.publish(self._paths.part, self._paths.blob)

    def remove(self) -> None:
        """Give the file up, if it still has its name."""
        if self._has_name(self._paths.part):
            files.remove(self._paths.metadata)
            files.remove(self._paths.part)

    def _has_name(self, path: Path) -> bool:
        try:
            return os.path.samestat(os.fstat(self.descriptor), os.stat(path))
        except FileNotFoundError:
            return False


def open_partial(paths: PartialPaths) -> tuple[PartialFile, PartialState]:
    """Open the finished blob, or else the partial file, which is made if necessary; never an unlinked one.

    :raises OSError: if it cannot be opened or made.
    """
    while True:
        blob = open_finished(paths.blob)
        if blob is not None:
            return PartialFile(paths, blob), PartialState.COMPLETE
        os.makedirs(paths.part.parent, exist_ok=True)
        descriptor = _open(paths.part, os.O_RDWR | os.O_CREAT)
        if descriptor is not None:
            partial = PartialFile(paths, descriptor)
            state = _settle(partial, paths)
            if state is not None:
                return partial, state


def goes_on(span: Span, paths: PartialPaths) -> bool:
    """Return whether a range to the end begins within the bytes of a partial file, or right after them."""
    if not span.first or span.last is not None:
        return False
    try:
        return span.first <= paths.part.stat().st_size
    except OSError:
        return False


def is_locked(paths: PartialPaths) -> bool:
    """Return True while a process holds the lock of the partial file."""
    descriptor = _open(paths.part, os.O_RDONLY)
    if descriptor is None:
        return False
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: Path, flags: int) -> int | None:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o666)
    except (FileNotFoundError, NotADirectoryError):  # also where its directory was just removed
        return None


def open_finished(path: Path) -> int | None:
    """Return None for a file that is not sealed, too, and for an empty one: it is a leftover.

    The blob of no bytes is soon fetched again.
    """
    try:
        descriptor = open_file(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    if sealed_size(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _settle(partial: PartialFile, paths: PartialPaths) -> PartialState | None:
    """Return the state, or None after closing a file that was committed or given up in between."""
    with ExitStack() as closing:
        closing.callback(os.close, partial.descriptor)
        state = partial.state()
        if state is PartialState.OWNED and (blob := open_finished(paths.blob)) is not None:
            os.close(blob)  # it was committed before the lock was taken here
            partial.remove()
            return None
        if state in (PartialState.COMPLETE, PartialState.UNLINKED):
            return None
        if state is PartialState.OWNED and not partial.length():
            files.remove(paths.metadata)  # left by a file that was removed from outside
        closing.pop_all()
        return state
