"""Small files that are read whole and replaced atomically; all calls block.

After a kill or a power failure either the old or the new file is there. If two files are replaced
one after the other, the second is never there without the first.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from secrets import token_hex

from attrs import frozen
from twisted.logger import Logger

from . import files

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
            return SmallFile(read_all(file), status.st_mtime, _version(status))
        finally:
            os.close(file)
    except OSError as error:
        if not isinstance(error, _ABSENT):
            _log.error("{path} cannot be read: {error}", path=path, error=error)
        return None


def file_version(path: Path | str) -> Version | None:
    """Return the file's current version; None if it is missing or unreadable."""
    try:
        return _version(os.stat(path))
    except OSError:
        return None


def _version(status: os.stat_result) -> Version:
    return status.st_ino, status.st_ctime_ns, status.st_mtime_ns


def read_all(file: int) -> bytes:
    return b"".join(iter(partial(os.read, file, 1024 * 1024), b""))


def replace_file(path: Path, content: bytes, directory: Path, modified: float) -> None:
    """Replace the file's content and modification time.

    :param directory: directory for the temporary file, on the same file system.
    :raises OSError: if that fails; nothing has changed then.
    """
    temporary = directory / f"{os.getpid()}-{token_hex(8)}"
    file = _create(temporary)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)  # a locked file is not deleted as abandoned
        _write(file, content)
        os.utime(file, (modified, modified))
        os.fsync(file)
        files.publish(temporary, path)
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
        files.make_directory(path.parent)
        return os.open(path, flags, 0o666)


def _write(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]
