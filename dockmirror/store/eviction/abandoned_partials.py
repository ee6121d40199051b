"""What nobody will finish: parts of blobs that nobody asks for any more, and files of dead writers."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .. import files, layout
from . import store_files

_DAY = 24 * 3600.0
_HOUR = 3600.0


def count_abandoned(root: Path, now: float) -> int:
    """How many parts would be dropped."""
    parts = (path for path, _ in store_files.iter_downloads(root) if path.suffix != layout.SIZE)
    return sum(_if_left(path, now - _DAY, lambda: True) for path in parts)


def delete_abandoned(root: Path, now: float) -> int:
    """Drops parts that nobody has touched for a day; how many.

    What somebody has locked stays, and what is so new that it may yet be locked.
    """
    for path in store_files.iter_temporary_files(root):
        if path.is_dir():
            _drop_trial(path, now - _HOUR)
        else:
            _drop(path, now - _HOUR)
    return sum(_drop_part(path, now - _DAY) for path, _ in store_files.iter_downloads(root))


def _drop_part(path: Path, before: float) -> bool:
    if path.suffix != layout.SIZE:
        return _drop(path, before)
    if not path.with_suffix("").exists():
        _drop(path, before)
    return False


def _drop(path: Path, before: float) -> bool:
    """Whether a file was dropped."""

    def remove() -> bool:
        files.remove(path.with_name(path.name + layout.SIZE))
        return files.remove(path)

    return _if_left(path, before, remove)


def _if_left(path: Path, before: float, then: Callable[[], bool]) -> bool:
    """What is done with a file that was last modified before then, and is locked by nobody."""
    stored = store_files.stat_file(path)
    if stored is None or stored.used >= before:
        return False
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return store_files.stat_file(path) == stored and then()
    except BlockingIOError:
        return False
    finally:
        os.close(file)


def _drop_trial(path: Path, before: float) -> None:
    """A directory in which a start looked whether it could write, and was killed."""
    with suppress(FileNotFoundError):
        if path.stat().st_mtime < before:
            shutil.rmtree(path, ignore_errors=True)
