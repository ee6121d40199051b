"""The store's directory, for a command that works on it beside its mirrors."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..store import layout
from .context import Context


def store_of(context: Context) -> Path:
    """The store's directory, as its owner: root leaves no files there that the mirror could not change.

    :raises click.ClickException: when there is none.
    """
    root = find_store(context)
    become_owner(root)
    return root


def find_store(context: Context) -> Path:
    """The store's directory, for whoever only reads there.

    :raises click.ClickException: when there is none.
    """
    root = context.settings.cache
    if root is None or not (root / layout.BLOBS).is_dir():
        raise click.ClickException(f"there is no cache in {root}: a mirror makes it when it starts")
    return root


def become_owner(root: Path) -> None:
    """Takes the directory's user and group, where this is root and the directory another's."""
    status = root.stat()
    if os.geteuid() == 0 and status.st_uid != 0:
        os.setgroups([])
        os.setgid(status.st_gid)
        os.setuid(status.st_uid)
