"""A set of digests in memory that several processes may share."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from .shared_table import SharedTable, key_of

_SLOT = Struct("<Q32sd")
"""The key of a digest, the digest, when it was added."""
SIZE = 16_384 * _SLOT.size
"""Bytes of memory for so many digests at a time."""


class SharedDigests:
    """SHA-256 digests; where there are too many, the oldest ones are forgotten.

    :param memory: of ``SIZE`` bytes or fewer, zero at first.
    :param now: tells the time in seconds.
    """

    def __init__(self, memory: memoryview, now: Callable[[], float]) -> None:
        self._slots = SharedTable(memory, _SLOT, lambda record: record[2])
        self._now = now

    def __contains__(self, digest: bytes) -> bool:
        record = self._slots.find(key_of(digest))[1]
        return record is not None and record[1] == digest

    def add(self, digest: bytes) -> None:
        """Adds it."""
        key = key_of(digest)
        self._slots.put(self._slots.find(key)[0], key, digest, self._now())
