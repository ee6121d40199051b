"""Tables in memory that processes share."""

from __future__ import annotations

import hashlib
from mmap import mmap
from struct import Struct

import pytest

from dockmirror.system.shared_table import DIGESTS_SIZE, SharedDigests, SharedTable, hash_key

RECORD = Struct("<QQ")


def slots(count: int) -> SharedTable:
    """Return an empty table that evicts the smallest values."""
    return SharedTable(memoryview(mmap(-1, count * RECORD.size)), RECORD, lambda record: record[1])


def put(table: SharedTable, key: int, value: int) -> None:
    place, _ = table.find(key)
    table.put(place, key, value)


def test_each_key_has_its_own_record_which_is_found_and_replaced() -> None:
    table = slots(100)
    for key in (5, 6, 105):
        put(table, key, key)
    put(table, 5, 7)
    assert [table.find(key)[1] for key in (5, 6, 105, 7)] == [(5, 7), (6, 6), (105, 105), None]
    assert sorted(table.records()) == [(5, 7), (6, 6), (105, 105)]


def test_a_full_table_evicts_the_lowest_of_the_candidates() -> None:
    table = slots(8)
    for key in range(1, 9):
        put(table, key, (key * 3) % 8)
    put(table, 9, 1)
    assert table.find(8)[1] is None
    assert sorted(record[0] for record in table.records()) == [1, 2, 3, 4, 5, 6, 7, 9]


@pytest.mark.parametrize("name", [b"", b"a"])
def test_keys_have_eight_bytes_and_are_never_zero(name: bytes) -> None:
    assert 0 < hash_key(name) < 2**64


def digest(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def test_added_digests_are_found_by_all_processes_and_no_others() -> None:
    memory = memoryview(mmap(-1, DIGESTS_SIZE))
    ours, theirs = SharedDigests(memory, lambda: 1.0), SharedDigests(memory, lambda: 2.0)
    ours.add(digest(1))
    theirs.add(digest(2))
    for each in (ours, theirs):
        assert [digest(number) in each for number in (1, 2, 3)] == [True, True, False]


def test_a_discarded_digest_is_gone_for_all_processes() -> None:
    memory = memoryview(mmap(-1, DIGESTS_SIZE))
    ours, theirs = (SharedDigests(memory, lambda: 1.0) for _ in range(2))
    ours.add(digest(1))
    ours.add(digest(2))
    assert [theirs.discard(digest(1)), ours.discard(digest(1))] == [True, False]
    assert [digest(number) in ours for number in (1, 2)] == [False, True]


def test_the_oldest_digests_are_evicted_when_the_table_is_full() -> None:
    now = 0.0
    digests = SharedDigests(memoryview(mmap(-1, 8 * 48)), lambda: now)
    for number in range(9):
        now = float(number)
        digests.add(digest(number))
    assert [number for number in range(9) if digest(number) in digests] == list(range(1, 9))
