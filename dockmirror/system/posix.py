"""File ownership, and the limit on open files."""

from __future__ import annotations

import os
import resource
from pathlib import Path

_FALLBACK_LIMIT = 1_000_000
"""More than Linux allows by default."""
_RESERVED = 64
"""Files that the process itself needs, including the reserve of connections for health checks."""
_FILES_PER_CLIENT = 3
"""Files for each client: its connection, the connection to an upstream, and a file of the store."""


def raise_connection_limit() -> int:
    """Raise the soft limit on open files to the hard limit; return the clients that it allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _FALLBACK_LIMIT if hard == resource.RLIM_INFINITY else min(hard, _FALLBACK_LIMIT)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(1, (limit - _RESERVED) // _FILES_PER_CLIENT)


def make_directory_for(directory: Path, uid: int, gid: int) -> None:
    """Create a directory for the user that twistd will switch to (``--uid``), unless it exists.

    :raises OSError: when it can be neither created nor chowned.
    """
    if not directory.exists():
        directory.mkdir(0o700, parents=True)
        os.chown(directory, uid, gid)


def chown_to_parent(path: Path) -> None:
    """Give a file that root created to the owner of its directory.

    :raises OSError: when the owner cannot be changed.
    """
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
