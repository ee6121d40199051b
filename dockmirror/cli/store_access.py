"""The store's directory, for a command that works on it beside its mirrors."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..config.settings import Settings
from ..store import layout


def store_of(settings: Settings) -> Path:
    """The store's directory, as its owner: root leaves no files there that the mirror could not change.

    What else root has to read is read before.

    :raises click.ClickException: when there is none.
    """
    root = find_store(settings)
    status = root.stat()
    if os.geteuid() != 0 or status.st_uid == 0:
        return root
    os.chdir(root)  # for its owner may not even get there: systemd keeps it below a directory of root's
    os.setgroups([])
    os.setgid(status.st_gid)
    os.setuid(status.st_uid)
    return Path()


def find_store(settings: Settings) -> Path:
    """The store's directory, for whoever only reads there.

    :raises click.ClickException: when there is none, or it is somebody else's.
    """
    root = settings.cache
    try:
        is_there = root is not None and (root / layout.BLOBS).is_dir()
    except PermissionError:
        raise click.ClickException(f"the cache in {root} may be read by its owner alone") from None
    if root is None or not is_there:
        raise click.ClickException(f"there is no cache in {root}: a mirror makes it when it starts")
    return root
