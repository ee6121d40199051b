"""Operations on files and directories that other processes change at the same time; all calls block.

Small files are read whole and replaced atomically: after a kill or a power failure either the old or the new
file is there. If two files are replaced one after the other, the second is never there without the first.

A seal marks a file that was verified and not written to since. It is a fraction of a second in the
modification time, which every write replaces.  The fraction depends on the size: a file that is truncated
while it is sealed again is not sealed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from secrets import token_hex

from attrs import frozen
from twisted.logger import Logger

TOUCH_INTERVAL = 60.0
"""Seconds during which further uses of a file are not recorded."""

_ATTEMPTS = 100


def publish(source: Path, target: Path) -> None:
    """Rename a complete file to its final name, durably; missing directories are made.

    :raises OSError: if that fails; the source stays where it was.
    """
    made: list[Path] = []
    for attempt in range(_ATTEMPTS):
        try:
            made += make_directory(target.parent)
            os.rename(source, target)
            break
        except FileNotFoundError:  # an eviction may have removed the directory
            if attempt + 1 == _ATTEMPTS or not source.exists():
                raise
    for directory in dict.fromkeys((target.parent, *(path.parent for path in made))):
        sync_directory(directory)


def sync_directory(path: Path) -> None:
    """Make the directory's entries durable."""
    with suppress(FileNotFoundError):  # evicted already
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def make_directory(path: Path) -> list[Path]:
    """Make a directory with its parents; return those that were made."""
    made: list[Path] = []
    try:
        os.mkdir(path)
    except FileExistsError:
        return made
    except FileNotFoundError:
        made = make_directory(path.parent)
        with suppress(FileExistsError):
            os.mkdir(path)
    return [*made, path]


def lock(path: Path) -> int | None:
    """Open the lock file and lock it until it is closed; None if another process has locked it."""
    file = _open_lock(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def wait_for_lock(path: Path) -> int:
    """Open the lock file and wait until it is locked by this process."""
    file = _open_lock(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except BaseException:
        os.close(file)
        raise
    return file


def _open_lock(path: Path) -> int:
    make_directory(path.parent)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def touch(file: int | Path, modified: float, now: float) -> None:
    """Record in the modification time that a file was used, at most once a minute."""
    if not 0 <= now - modified < TOUCH_INTERVAL:
        with suppress(OSError):  # another user's file, or a full disk
            touch_sealed(file, now)


def remove(path: Path) -> bool:
    """Delete a file; report whether it was there."""
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def remove_empty(path: Path, top: Path) -> int:
    """Remove an empty directory and its empty parents below ``top``; return how many were removed."""
    count = 0
    while path != top:
        try:
            os.rmdir(path)
            count += 1
        except FileNotFoundError:
            pass
        except OSError:  # not empty, perhaps only since a moment ago
            break
        path = path.parent
    return count


def list_names(directory: Path) -> list[str]:
    """Return the names in a directory; none if it is missing."""
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)

_log = Logger()


Version = tuple[int, int, int]
"""Changes with every change of the file's content or modification time."""


@frozen
class SmallFile:
    """The content of a small file, and its modification time in seconds since the epoch."""

    data: bytes
    modified: float
    version: Version


def read_small_file(path: Path) -> SmallFile | None:
    """Read a small file; None if it is missing or unreadable."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(file)
            return SmallFile(read_all(file), status.st_mtime, version(status))
        finally:
            os.close(file)
    except OSError as error:
        if not isinstance(error, _ABSENT):
            _log.error("{path} cannot be read: {error}", path=path, error=error)
        return None


def iter_small_files(directory: Path) -> Iterator[tuple[Path, SmallFile]]:
    """Read the small files of a directory, in the order of their names."""
    for name in sorted(list_names(directory)):
        if found := read_small_file(directory / name):
            yield directory / name, found


def file_version(path: Path | str) -> Version | None:
    """Return the file's current version; None if it is missing or unreadable."""
    try:
        return version(os.stat(path))
    except OSError:
        return None


def version(status: os.stat_result) -> Version:
    return status.st_ino, status.st_ctime_ns, status.st_mtime_ns


def read_all(file: int) -> bytes:
    return b"".join(iter(partial(os.read, file, 1024 * 1024), b""))


def replace_file(path: Path, content: bytes, directory: Path, modified: float) -> None:
    """Replace the file's content and modification time.

    :param directory: directory for the temporary file, on the same file system.
    :raises OSError: if that fails; nothing has changed then.
    """
    with open_replacement(path, directory) as file:
        write_all(file, content)
        os.utime(file, (modified, modified))


@contextmanager
def open_replacement(path: Path, directory: Path) -> Iterator[int]:
    """Open a temporary file that is published in place of another one at the end, unless that fails.

    :param directory: directory for the temporary file, on the same file system.
    """
    temporary = directory / f"{os.getpid()}-{token_hex(8)}"
    file = _create(temporary)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)  # a locked file is not deleted as abandoned
        yield file
        os.fsync(file)
        publish(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    finally:
        os.close(file)


def _create(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:  # an operator emptied the cache
        make_directory(path.parent)
        return os.open(path, flags, 0o666)


def write_all(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]


def write_at(file: int, content: bytes, offset: int) -> None:
    """Write at an offset.

    :raises OSError: if that fails; a part may have been written.
    """
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


_SECOND = 10**9
_PRIME = 271_828_171


def is_sealed(status: os.stat_result) -> bool:
    """Report whether the file was verified and not written to since."""
    return status.st_mtime_ns % _SECOND == _fraction(status.st_size)


def sealed_size(file: int) -> int | None:
    """Return the size of an open file; None if it is not sealed."""
    status = os.fstat(file)
    return status.st_size if is_sealed(status) else None


def seal(file: int | Path, at: float, size: int) -> bool:
    """Mark a file as verified, modified at that second.

    :param size: the bytes that were verified.
    :returns: False if the file system stores no fractions of a second, or the file has another size.
    :raises OSError: if the file belongs to another user or the disk is full.
    """
    modified = int(at) * _SECOND + _fraction(size)
    os.utime(file, ns=(modified, modified))
    return is_sealed(os.stat(file))


def _fraction(size: int) -> int:
    """Return the nanoseconds of the seal, of which none are no fraction."""
    return (size + 1) * _PRIME % _SECOND or 1


def touch_sealed(file: int | Path, at: float) -> None:
    """Set the modification time and keep the seal; a file that is truncated meanwhile loses it.

    :raises OSError: like ``seal``.
    """
    before = os.stat(file)
    if is_sealed(before):
        seal(file, at, before.st_size)
    else:
        os.utime(file, (at, at))
