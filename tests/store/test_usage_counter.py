"""How much a store holds, as the processes that share it know."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.store import layout
from dockmirror.store.eviction.budget import (
    StoreUsage,
    read_store_usage,
    try_lock_usage_counter,
    wait_for_usage_counter,
)


@given(st.builds(StoreUsage, st.integers(), st.floats(0, 1e12)))
def test_round_trip(figures: StoreUsage) -> None:
    """What was written is read; a beginning of it is not."""
    text = str(figures)
    assert StoreUsage.parse(text) == figures
    assert {StoreUsage.parse(text[:end]) for end in range(len(text))} == {None}


@pytest.mark.parametrize("text", ["", "x", "1 2", "1 x .\n", "x 2 .\n", "1 2 .\n3 .\n", "1 2 .\n\0"])
def test_malformed(text: str) -> None:
    """Figures that were not written whole are not known."""
    assert StoreUsage.parse(text) is None


def test_one_at_a_time(tmp_path: Path) -> None:
    """While one has the figures nobody else has; then they are what that one wrote."""
    with try_lock_usage_counter(tmp_path) as figures:
        assert figures is not None
        assert figures.read() is None
        figures.write(StoreUsage(1000, 2000.5))
        with try_lock_usage_counter(tmp_path) as others:
            assert others is None
        figures.write(StoreUsage(1, 2))
    with try_lock_usage_counter(tmp_path) as figures:
        assert figures is not None
        assert figures.read() == StoreUsage(1, 2)
    (tmp_path / layout.USAGE_COUNTER).write_bytes(b"\xff\xfe")
    with try_lock_usage_counter(tmp_path) as figures:
        assert figures is not None
        assert figures.read() is None


def test_counted_from_beside(tmp_path: Path) -> None:
    """What came or went is added to what is known, never below nothing; what is not known stays so."""
    assert read_store_usage(tmp_path) is None
    with wait_for_usage_counter(tmp_path) as figures:
        figures.add(50)
        assert figures.read() is None
        figures.write(StoreUsage(100, 7.0))
        figures.add(-30)
        assert read_store_usage(tmp_path) == StoreUsage(70, 7.0)
        figures.add(-71)
    assert read_store_usage(tmp_path) == StoreUsage(0, 7.0)


def test_in_turn(tmp_path: Path) -> None:
    """Who wants to count waits for who counts, and nothing is lost."""

    def add(count: int) -> None:
        with wait_for_usage_counter(tmp_path) as figures:
            figures.add(count)

    with ThreadPoolExecutor(2) as pool:
        with try_lock_usage_counter(tmp_path) as figures:
            assert figures is not None
            adding = [pool.submit(add, count) for count in (-30, 5)]
            figures.write(StoreUsage(100, 7.0))
            assert not any(each.done() for each in adding)
        for each in adding:
            each.result()
    assert read_store_usage(tmp_path) == StoreUsage(75, 7.0)
