"""The mark of a content that nobody has written to since it was verified; calls that block.

It stands in the fraction of a second of the file's time of modification, which every write replaces.
"""

from __future__ import annotations

import os
from pathlib import Path

_SECOND = 10**9
_MARK = 271_828_182


def is_sealed(status: os.stat_result) -> bool:
    """Whether the file was verified, and has not been written to since."""
    return status.st_mtime_ns % _SECOND == _MARK


def seal(file: int | Path, at: float) -> bool:
    """Marks a file as verified, and as modified in that second.

    :returns: False where the file system keeps no fractions: there nothing can be known of its files.
    :raises OSError: when it is another's, or the disk takes nothing.
    """
    modified = int(at) * _SECOND + _MARK
    os.utime(file, ns=(modified, modified))
    return is_sealed(os.stat(file))


def touch_sealed(file: int | Path, at: float) -> None:
    """Has it modified at that time, and as well sealed as it was; one that is cut short meanwhile is not.

    :raises OSError: see ``seal``.
    """
    before = os.stat(file)
    if is_sealed(before):
        seal(file, at)
    if not is_sealed(before) or os.stat(file).st_size != before.st_size:
        os.utime(file, (at, at))
