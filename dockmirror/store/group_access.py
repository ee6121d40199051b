"""Read access of a group to the files of blobs, for a proxy in front that sends them; all calls block.

Everything else in a store stays private to its owner.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from stat import S_IMODE, S_ISDIR

from . import layout

_DIRECTORY, _FILE, _PRIVATE = 0o750, 0o640, 0o700


def share_file(blobs: Path, name: PurePosixPath, group: int) -> None:
    """Let a group read a file below the directory of blobs.

    :raises OSError: if a mode or a group cannot be set; it names the file or directory.
    """
    path = blobs
    for part in name.parts:
        path /= part
        _share(path, group)


def share_directories(root: Path, group: int) -> None:
    """Let a group enter the directories down to that of blobs, and none of those beside them.

    :raises OSError: if a mode or a group cannot be set; it names the directory.
    """
    for private in (layout.REPOSITORIES, layout.TEMPORARY.parent):
        _set_mode(root / private, os.stat(root / private), _PRIVATE)
    for shared in (*reversed(layout.BLOBS.parents), layout.BLOBS):
        _share(root / shared, group)


def closed_directories(path: Path, group: int) -> Iterator[Path]:
    """Yield the existing directories above a path that members of the group cannot enter."""
    for directory in path.absolute().parents:
        if directory.exists():
            status = directory.stat()
            if not status.st_mode & (0o010 if status.st_gid == group else 0o001):
                yield directory


def _share(path: Path, group: int) -> None:
    status = os.stat(path)
    if status.st_gid != group:
        os.chown(path, -1, group)
    _set_mode(path, status, _DIRECTORY if S_ISDIR(status.st_mode) else _FILE)


def _set_mode(path: Path, status: os.stat_result, mode: int) -> None:
    if S_IMODE(status.st_mode) != mode:
        os.chmod(path, mode)
