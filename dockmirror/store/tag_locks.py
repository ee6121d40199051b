"""Locks of tags that are refreshed, shared by the processes of a machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from zlib import crc32

from . import files, layout
from .threads import RunInThread, shield

COUNT = 64
"""Files; tags whose names hash to the same one are refreshed one after the other."""


class TagLocks:
    """Lets one process at a time refresh a tag.

    :param root: the cache directory.
    """

    def __init__(self, root: Path, in_thread: RunInThread) -> None:
        self._root = root
        self._in_thread = in_thread

    async def claim(self, tag: object) -> Callable[[], None] | None:
        """Return a function that ends the turn of this process, or None if another one has it.

        If no lock can be had, as on a full disk, every process has the turn.
        """
        path = self._root / layout.tag_refresh_lock(crc32(str(tag).encode()) % COUNT)
        try:
            lock = await shield(self._in_thread(partial(files.lock, path)), late=_close)
        except OSError:
            return lambda: None
        return None if lock is None else partial(os.close, lock)


def _close(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)
