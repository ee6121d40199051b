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

    def all(self) -> Iterator[Record]:
        """Those that there are."""
        records = self._record.iter_unpack(self._memory[: self._count * self._record.size])
        return (record for record in records if record[0])

    def _missed(self, other: tuple[int, Record]) -> tuple[Any, ...]:
        _, record = other
        return (self._value(record),) if record[0] else ()


def key_of(name: bytes) -> int:
    """The key of a name, never zero: that is nobody's."""
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") or 1
