"""Small files, read whole and replaced whole; calls that block.

A process killed at any instant, or a machine without power, leaves the old file or the new one; and
of two files that were replaced one after the other never the second alone.
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
"""Of a file: each time that its content or its time of modification changes, so does this."""


@frozen
class SmallFile:
    """What a small file held, and when it was modified, in seconds since the epoch."""

    data: bytes
    modified: float
    version: Version


def read_small_file(path: Path) -> SmallFile | None:
    """A small file; None where there is none, or the disk does not give it."""
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
    """Of a small file as it is now; None where there is none, or the disk does not say."""
    try:
        return _version(os.stat(path))
    except OSError:
        return None


def _version(status: os.stat_result) -> Version:
    return status.st_ino, status.st_ctime_ns, status.st_mtime_ns


def read_all(file: int) -> bytes:
    """Everything in an open file."""
    return b"".join(iter(partial(os.read, file, 1024 * 1024), b""))


def replace_file(path: Path, content: bytes, writing: Path, modified: float) -> None:
    """Gives the file this content and this time of modification.

    :param writing: the directory in which it is written first; on the same file system.
    :raises OSError: when it cannot be; nothing has changed then.
    """
    beside = writing / f"{os.getpid()}-{token_hex(8)}"
    file = _create(beside)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)  # so that nobody takes it for a dead writer's
        _write(file, content)
        os.utime(file, (modified, modified))
        os.fsync(file)
        files.publish(beside, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(beside)
        raise
    finally:
        os.close(file)


def _create(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:  # an operator has emptied the cache
        files.make_directory(path.parent)
        return os.open(path, flags, 0o666)


def _write(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]
