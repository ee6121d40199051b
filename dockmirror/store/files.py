"""Files and directories that come and go while others use them; calls that block."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from .seal import touch_sealed

NOTED = 60.0
"""Seconds for which a use that was noted stands for those that follow."""

_ATTEMPTS = 100


def publish(source: Path, target: Path) -> None:
    """Gives a file, whole and synced, its name, in directories that are made for it.

    :raises OSError: when it cannot be; the source is there still, unless it was not there before.
    """
    made: list[Path] = []
    for attempt in range(_ATTEMPTS):
        try:
            made += make_directory(target.parent)
            os.rename(source, target)
            break
        except FileNotFoundError:  # an eviction may have removed the directory meanwhile
            if attempt + 1 == _ATTEMPTS or not source.exists():
                raise
    for directory in dict.fromkeys((target.parent, *(path.parent for path in made))):
        sync_directory(directory)


def sync_directory(path: Path) -> None:
    """What the directory says now is there after a crash."""
    with suppress(FileNotFoundError):  # evicted already
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def make_directory(path: Path) -> list[Path]:
    """Makes a directory, and those above it; which ones had to be made."""
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
    """A file, made where it is not there, open and locked until it is closed; None while another has it."""
    file = _open_lock(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def wait_for_lock(path: Path) -> int:
    """Return the same, as soon as nobody else has it."""
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
    """Notes in the time of modification that a file was used, at most once a minute."""
    if not 0 <= now - modified < NOTED:
        with suppress(OSError):  # of a file that is another's, or on a disk that takes nothing any more
            touch_sealed(file, now)


def remove(path: Path) -> bool:
    """Whether there was a file to be removed."""
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def remove_empty(path: Path, top: Path) -> int:
    """Removes the directory and those above it, below ``top``, that hold nothing; how many those were."""
    count = 0
    while path != top:
        try:
            os.rmdir(path)
            count += 1
        except FileNotFoundError:
            pass
        except OSError:  # there is something in it, perhaps only since a moment ago
            break
        path = path.parent
    return count
