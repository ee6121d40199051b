"""A table in memory that several processes may share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any

_TRIED = 8

Record = tuple[Any, ...]


class SharedTable:
    """Records, each in one of a few slots that its key picks; where all are others', one is forgotten.

    Processes that write at the same moment may lose one of two additions, and nothing else.

    :param memory: zero at first.
    :param record: begins with the key of whose it is.
    :param value: of records the one of the least value is missed least.
    """

    def __init__(self, memory: memoryview, record: Struct, value: Callable[[Record], Any]) -> None:
        self._memory = memory
        self._record = record
        self._value = value
        self._count = len(memory) // record.size

    def find(self, key: int) -> tuple[int, Record | None]:
        """Where it is, or may be put, and the record, where there is one."""
        others = []
        for step in range(_TRIED):
            place = (key + step) % self._count * self._record.size
            record = self._record.unpack_from(self._memory, place)
            if record[0] == key:
                return place, record
            others.append((place, record))
        return min(others, key=self._missed)[0], None

    def put(self, place: int, key: int, *fields: Any) -> None:
        """The record that is there from now on."""
        self._record.pack_into(self._memory, place, key, *fields)

    def records(self) -> Iterator[Record]:
        """Those that there are."""
        records = self._record.iter_unpack(self._memory[: self._count * self._record.size])
        return (record for record in records if record[0])

    def _missed(self, other: tuple[int, Record]) -> tuple[Any, ...]:
        _, record = other
        return (self._value(record),) if record[0] else ()


def hash_key(name: bytes) -> int:
    """The key of a name, never zero: that is nobody's."""
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") or 1


_SLOT = Struct("<Q32sd")
"""The key of a digest, the digest, when it was added."""
DIGESTS_SIZE = 16_384 * _SLOT.size
"""Bytes of memory for so many digests at a time."""


class SharedDigests:
    """SHA-256 digests; where there are too many, the oldest ones are forgotten.

    :param memory: of ``DIGESTS_SIZE`` bytes or fewer, zero at first.
    :param now: tells the time in seconds.
    """

    def __init__(self, memory: memoryview, now: Callable[[], float]) -> None:
        self._slots = SharedTable(memory, _SLOT, lambda record: record[2])
        self._now = now

    def __contains__(self, digest: bytes) -> bool:
        record = self._slots.find(hash_key(digest))[1]
        return record is not None and record[1] == digest

    def add(self, digest: bytes) -> None:
        """Adds it."""
        key = hash_key(digest)
        self._slots.put(self._slots.find(key)[0], key, digest, self._now())
