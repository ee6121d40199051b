"""Hash tables in memory that processes share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any

_CANDIDATES = 8

Record = tuple[Any, ...]


class SharedTable:
    """Fixed-size records in a few candidate slots per key; if all are taken, one is evicted.

    Processes that write at the same moment may lose one of two updates, but nothing else.

    :param memory: zeroed at first.
    :param record: its first field is the key.
    :param value: ranks records; the lowest one is evicted.
    """

    def __init__(self, memory: memoryview, record: Struct, value: Callable[[Record], Any]) -> None:
        self._memory = memory
        self._record = record
        self._value = value
        self._count = len(memory) // record.size

    def find(self, key: int) -> tuple[int, Record | None]:
        """Return the offset of the key's slot, or of the one to use for it, and the record if any."""
        return self.get(key) or (min(self._candidates(key), key=self._rank)[0], None)

    def get(self, key: int) -> tuple[int, Record] | None:
        """Return the offset of the key's slot and its record, or None."""
        for offset, record in self._candidates(key):
            if record[0] == key:
                return offset, record
        return None

    def put(self, offset: int, key: int, *fields: Any) -> None:
        """Write a record."""
        self._record.pack_into(self._memory, offset, key, *fields)

    def records(self) -> Iterator[Record]:
        """Return all records."""
        records = self._record.iter_unpack(self._memory[: self._count * self._record.size])
        return (record for record in records if record[0])

    def _candidates(self, key: int) -> Iterator[tuple[int, Record]]:
        size = self._record.size
        start = key % max(1, self._count - _CANDIDATES + 1) * size
        end = min(start + _CANDIDATES * size, self._count * size)
        return zip(range(start, end, size), self._record.iter_unpack(self._memory[start:end]), strict=True)

    def _rank(self, candidate: tuple[int, Record]) -> tuple[Any, ...]:
        _, record = candidate
        return (self._value(record),) if record[0] else ()


def hash_key(name: bytes) -> int:
    """Hash a name to a key, which is never zero: zero marks an empty slot."""
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") or 1


_SLOT = Struct("<Q32sd")
"""Key of the digest, the digest, the time when it was added."""
DIGESTS_SIZE = 16_384 * _SLOT.size
"""Bytes of memory for 16,384 digests."""


class SharedDigests:
    """A set of SHA-256 digests in shared memory; the oldest ones are evicted.

    :param memory: at most ``DIGESTS_SIZE`` bytes, zeroed at first.
    :param now: returns the time in seconds.
    """

    def __init__(self, memory: memoryview, now: Callable[[], float]) -> None:
        self._slots = SharedTable(memory, _SLOT, lambda record: record[2])
        self._now = now

    def __contains__(self, digest: bytes) -> bool:
        found = self._slots.get(hash_key(digest))
        return found is not None and found[1][1] == digest

    def add(self, digest: bytes) -> None:
        key = hash_key(digest)
        self._slots.put(self._slots.find(key)[0], key, digest, self._now())

    def discard(self, digest: bytes) -> bool:
        """Remove a digest; return False if it was not there."""
        found = self._slots.get(hash_key(digest))
        if found is None or found[1][1] != digest:
            return False
        self._slots.put(found[0], 0, bytes(32), 0.0)
        return True
