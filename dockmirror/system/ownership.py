"""To whom belongs what is made before the rights of root are given up, as ``twistd --uid`` does."""

from __future__ import annotations

import os
from pathlib import Path


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
