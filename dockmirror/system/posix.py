"""How many files and connections this process may have open at a time."""

from __future__ import annotations

import os
import resource
from pathlib import Path

_MOST = 1_000_000
"""More than Linux lets a process have, unless it was asked to."""
_OWN = 64
"""What the process itself has open, and the connections on which health is answered beyond the limit."""
_EACH = 3
"""A client's connection, the upstream's that it waits for, and a file of the store."""


def raise_connection_limit() -> int:
    """How many clients there is room for, once the soft limit is as high as it may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(1, (most - _OWN) // _EACH)


def make_directory_for(directory: Path, uid: int, gid: int) -> None:
    """Makes a directory for that user alone, where it is not there.

    :raises OSError: when it can be neither made nor given.
    """
    if not directory.exists():
        directory.mkdir(0o700, parents=True)
        os.chown(directory, uid, gid)


def chown_to_parent(path: Path) -> None:
    """What root has made in somebody's directory is that one's, and not root's.

    :raises OSError: when that cannot be.
    """
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
