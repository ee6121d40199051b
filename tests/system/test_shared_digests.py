"""Digests that processes share."""

from __future__ import annotations

import hashlib
from mmap import mmap

from dockmirror.system.shared_digests import SIZE, SharedDigests


def digest(number: int) -> bytes:
    """One of many."""
    return hashlib.sha256(b"%d" % number).digest()


def test_those_that_were_added() -> None:
    """Are in it, for everybody who has the memory, and no others."""
    memory = memoryview(mmap(-1, SIZE))
    ours, theirs = SharedDigests(memory, lambda: 1.0), SharedDigests(memory, lambda: 2.0)
    ours.add(digest(1))
    theirs.add(digest(2))
    for each in (ours, theirs):
        assert [digest(number) in each for number in (1, 2, 3)] == [True, True, False]


def test_the_oldest_are_forgotten() -> None:
    """Where there is no room for all."""
    now = 0.0
    digests = SharedDigests(memoryview(mmap(-1, 8 * 48)), lambda: now)
    for number in range(9):
        now = float(number)
        digests.add(digest(number))
    assert [number for number in range(9) if digest(number) in digests] == list(range(1, 9))
