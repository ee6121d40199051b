"""Marks files that were verified and not written to since; all calls block.

The mark is a fixed fraction of a second in the file's modification time, which every write replaces.
"""

from __future__ import annotations

import os
from pathlib import Path

_SECOND = 10**9
_MARK = 271_828_182


def is_sealed(status: os.stat_result) -> bool:
    """Report whether the file was verified and not written to since."""
    return status.st_mtime_ns % _SECOND == _MARK


def seal(file: int | Path, at: float) -> bool:
    """Mark a file as verified, modified at that second.

    :returns: False if the file system stores no fractions of a second.
    :raises OSError: if the file belongs to another user or the disk is full.
    """
    modified = int(at) * _SECOND + _MARK
    os.utime(file, ns=(modified, modified))
    return is_sealed(os.stat(file))


def touch_sealed(file: int | Path, at: float) -> None:
    """Set the modification time and keep the seal; a file that is truncated meanwhile loses it.

    :raises OSError: like ``seal``.
    """
    before = os.stat(file)
    if is_sealed(before):
        seal(file, at)
    if not is_sealed(before) or os.stat(file).st_size != before.st_size:
        os.utime(file, (at, at))
