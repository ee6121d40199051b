"""Delete abandoned partial downloads and temporary files."""

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
    """Count the partial downloads that ``delete_abandoned`` would delete."""
    parts = (path for path, _ in store_files.iter_downloads(root) if path.suffix != layout.SIZE)
    return sum(_if_abandoned(path, now - _DAY, lambda: True) for path in parts)


def delete_abandoned(root: Path, now: float) -> int:
    """Delete temporary files unused for an hour and partial downloads unused for a day; count the latter.

    Locked files stay, and so do new ones, which may be about to be locked.
    """
    for path in store_files.iter_temporary_files(root):
        if path.is_dir():
            _delete_trial_directory(path, now - _HOUR)
        else:
            _delete_if_abandoned(path, now - _HOUR)
    return sum(_delete_partial(path, now - _DAY) for path, _ in store_files.iter_downloads(root))


def _delete_partial(path: Path, limit: float) -> bool:
    if path.suffix != layout.SIZE:
        return _delete_if_abandoned(path, limit)
    if not path.with_suffix("").exists():
        _delete_if_abandoned(path, limit)
    return False


def _delete_if_abandoned(path: Path, limit: float) -> bool:
    """Delete a file with its size file, if it is old and unlocked; report whether it was deleted."""

    def remove() -> bool:
        files.remove(path.with_name(path.name + layout.SIZE))
        return files.remove(path)

    return _if_abandoned(path, limit, remove)


def _if_abandoned(path: Path, limit: float, then: Callable[[], bool]) -> bool:
    """Call ``then`` if the file was last modified before that time and is unlocked."""
    stored = store_files.stat_file(path)
    if stored is None or stored.used >= limit:
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


def _delete_trial_directory(path: Path, limit: float) -> None:
    """Delete the directory of a check at start that was killed."""
    with suppress(FileNotFoundError):
        if path.stat().st_mtime < limit:
            shutil.rmtree(path, ignore_errors=True)
