"""Operations on files and directories that other processes change at the same time; all calls block."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from .seal import touch_sealed

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
