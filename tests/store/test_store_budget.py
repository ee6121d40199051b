"""The budget of a store."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.store import layout
from dockmirror.store.eviction.store_budget import (
    Budget,
    Shortfall,
    StoreUsage,
    read_store_usage,
    try_lock_usage_counter,
    wait_for_usage_counter,
)

GB = 10**9


def make_status(
    size: int = 1000 * GB, free: int = 500 * GB, inodes: int = 10_000, free_inodes: int = 5000
) -> os.statvfs_result:
    """A file system with blocks of 1000 bytes, some of which are reserved for root."""
    blocks, left = size // 1000, free // 1000
    of_inodes = inodes, free_inodes + 7, free_inodes
    return os.statvfs_result((4096, 1000, blocks, left + 7, left, *of_inodes, 0, 255))


@pytest.mark.parametrize(
    ("size", "default", "free", "inodes"),
    [
        (20 * GB, 4 * GB, 4 * GB, 2000),
        (50 * GB, 10 * GB, 10 * GB, 2000),
        (500 * GB, 100 * GB, 10 * GB, 200),
        (1000 * GB, 100 * GB, 10 * GB, 100),
    ],
)
def test_default_budget(size: int, default: int, free: int, inodes: int) -> None:
    """The default is a fifth of the file system, at most 100 GB; a fifth stays free, at most 10 GB.

    The same share of the inodes stays free as of the bytes.
    """
    assert Budget.default(make_status(size)) == Budget(default, free, inodes)


@pytest.mark.parametrize(
    ("budget", "size", "status", "shortfall"),
    [
        (Budget(1000), 0, {}, Shortfall()),
        (Budget(1000), 1000, {}, Shortfall()),
        (Budget(1000), 1001, {}, Shortfall(101)),
        (Budget(1000), 5000, {}, Shortfall(4100)),
        (Budget(1000 * GB, free_bytes=200 * GB), GB, {"free": 200 * GB}, Shortfall()),
        (Budget(1000 * GB, free_bytes=200 * GB), GB, {"free": 199 * GB}, Shortfall(21 * GB)),
        (Budget(1000 * GB, free_bytes=200 * GB), GB, {"free": 0}, Shortfall(220 * GB)),
        (Budget(1000 * GB, free_inodes=2000), GB, {"free_inodes": 2000}, Shortfall()),
        (Budget(1000 * GB, free_inodes=2000), GB, {"free_inodes": 1999}, Shortfall(0, 201)),
        (Budget(1000 * GB, free_inodes=2000), GB, {"free_inodes": 0}, Shortfall(0, 2200)),
        (Budget(10 * GB, free_bytes=200 * GB), 11 * GB, {"free": 100 * GB}, Shortfall(120 * GB)),
        (Budget(10 * GB, free_bytes=200 * GB), 500 * GB, {"free": 199 * GB}, Shortfall(491 * GB)),
        (Budget(GB, free_inodes=2000), 0, {"inodes": 0, "free_inodes": 0}, Shortfall()),
    ],
)
def test_shortfall(budget: Budget, size: int, status: dict[str, int], shortfall: Shortfall) -> None:
    """A tenth of what is exceeded is freed besides; the largest need of bytes counts, and inodes apart.

    A full budget is not exceeded. A file system that makes inodes on demand reports a total of 0.
    """
    found = budget.shortfall(size, make_status(**status))
    assert (found, bool(found)) == (shortfall, shortfall != Shortfall())


def test_freed_amounts_are_subtracted() -> None:
    """Freed amounts reduce the shortfall; freeing more than needed ends it."""
    need = Shortfall(10, 4) - Shortfall(10, 2)
    assert need == Shortfall(0, 2)
    assert need
    assert not need - Shortfall(5, 3)


@given(st.builds(StoreUsage, st.integers(), st.floats(0, 1e12)))
def test_round_trip(usage: StoreUsage) -> None:
    """A written usage is read again; a truncated one is not."""
    text = str(usage)
    assert StoreUsage.parse(text) == usage
    assert {StoreUsage.parse(text[:end]) for end in range(len(text))} == {None}


@pytest.mark.parametrize("text", ["", "x", "1 2", "1 x .\n", "x 2 .\n", "1 2 .\n3 .\n", "1 2 .\n\0"])
def test_malformed(text: str) -> None:
    """A malformed usage is unknown."""
    assert StoreUsage.parse(text) is None


def test_one_at_a_time(tmp_path: Path) -> None:
    """Only one process can lock the counter; the next one reads what it wrote."""
    with try_lock_usage_counter(tmp_path) as counter:
        assert counter is not None
        assert counter.read() is None
        counter.write(StoreUsage(1000, 2000.5))
        with try_lock_usage_counter(tmp_path) as other:
            assert other is None
        counter.write(StoreUsage(1, 2))
    with wait_for_usage_counter(tmp_path) as counter:
        assert counter.read() == StoreUsage(1, 2)
        (tmp_path / layout.USAGE_COUNTER).write_bytes(b"\xff\xfe")
        assert counter.read() is None


def test_add(tmp_path: Path) -> None:
    """Bytes are added and subtracted, never below 0; an unknown usage stays unknown."""
    assert read_store_usage(tmp_path) is None
    with wait_for_usage_counter(tmp_path) as counter:
        counter.add(50)
        assert counter.read() is None
        counter.write(StoreUsage(100, 7.0))
        counter.add(-30)
        assert read_store_usage(tmp_path) == StoreUsage(70, 7.0)
        counter.add(-71)
    assert read_store_usage(tmp_path) == StoreUsage(0, 7.0)


def test_waiting_for_the_lock(tmp_path: Path) -> None:
    """A process can wait for the lock, and no count is lost."""

    def add(count: int) -> None:
        with wait_for_usage_counter(tmp_path) as counter:
            counter.add(count)

    with ThreadPoolExecutor(2) as pool:
        with try_lock_usage_counter(tmp_path) as counter:
            assert counter is not None
            adding = [pool.submit(add, count) for count in (-30, 5)]
            counter.write(StoreUsage(100, 7.0))
            assert not any(each.done() for each in adding)
        for each in adding:
            each.result()
    assert read_store_usage(tmp_path) == StoreUsage(75, 7.0)
