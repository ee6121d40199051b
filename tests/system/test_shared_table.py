"""A table in memory that several processes may share."""

from __future__ import annotations

import hashlib
from mmap import mmap
from struct import Struct

import pytest

from dockmirror.system.shared_table import DIGESTS_SIZE, SharedDigests, SharedTable, hash_key

RECORD = Struct("<QQ")


def slots(count: int) -> SharedTable:
    """An empty table; of its records the smallest are missed least."""
    return SharedTable(memoryview(mmap(-1, count * RECORD.size)), RECORD, lambda record: record[1])


def put(table: SharedTable, key: int, value: int) -> None:
    """As whoever uses one does."""
    place, _ = table.find(key)
    table.put(place, key, value)


def test_each_has_its_own() -> None:
    """Each key has its own record, which is found and replaced."""
    table = slots(100)
    for key in (5, 6, 105):
        put(table, key, key)
    put(table, 5, 7)
    assert [table.find(key)[1] for key in (5, 6, 105, 7)] == [(5, 7), (6, 6), (105, 105), None]
    assert sorted(table.records()) == [(5, 7), (6, 6), (105, 105)]


def test_where_there_is_no_room() -> None:
    """The one of its slots goes that is missed least, and no other."""
    table = slots(8)
    for key in range(1, 9):
        put(table, key, (key * 3) % 8)
    put(table, 9, 1)
    assert table.find(8)[1] is None
    assert sorted(record[0] for record in table.records()) == [1, 2, 3, 4, 5, 6, 7, 9]


@pytest.mark.parametrize("name", [b"", b"a"])
def test_keys(name: bytes) -> None:
    """Keys have eight bytes and are never zero."""
    assert 0 < hash_key(name) < 2**64


def digest(number: int) -> bytes:
    """One of many."""
    return hashlib.sha256(b"%d" % number).digest()


def test_those_that_were_added() -> None:
    """Digests that were added are found by everyone who maps the memory, and no others."""
    memory = memoryview(mmap(-1, DIGESTS_SIZE))
    ours, theirs = SharedDigests(memory, lambda: 1.0), SharedDigests(memory, lambda: 2.0)
    ours.add(digest(1))
    theirs.add(digest(2))
    for each in (ours, theirs):
        assert [digest(number) in each for number in (1, 2, 3)] == [True, True, False]


def test_the_oldest_are_forgotten() -> None:
    """The oldest digests are evicted when the table is full."""
    now = 0.0
    digests = SharedDigests(memoryview(mmap(-1, 8 * 48)), lambda: now)
    for number in range(9):
        now = float(number)
        digests.add(digest(number))
    assert [number for number in range(9) if digest(number) in digests] == list(range(1, 9))
