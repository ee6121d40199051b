"""A page cache that holds nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest


@contextmanager
def cold_pages() -> Iterator[None]:
    """Let a read that must not wait find no page.

    The kernel cannot be relied on for it: such a read begins to read ahead, and gets what comes at once.
    """
    read = os.preadv

    def preadv(file: int, buffers: Sequence[bytearray | memoryview], offset: int, flags: int = 0) -> int:
        if flags & os.RWF_NOWAIT:
            raise BlockingIOError
        return read(file, buffers, offset, flags)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "preadv", preadv)
        yield
