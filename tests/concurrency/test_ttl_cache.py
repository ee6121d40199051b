"""Notes: what holds for a while."""

from __future__ import annotations

import weakref

import pytest
from twisted.internet.task import Clock

from dockmirror.concurrency.caching import TTLCache


@pytest.fixture
def clock() -> Clock:
    """Not at its very beginning."""
    clock = Clock()
    clock.advance(1000)
    return clock


@pytest.fixture
def notes(clock: Clock) -> TTLCache[str, int]:
    """None yet, and room for three."""
    return TTLCache(clock, limit=3)


def test_an_entry_expires_after_its_time(notes: TTLCache[str, int], clock: Clock) -> None:
    """To the second."""
    notes.put("a", 1, 10)
    clock.advance(9.9)
    assert notes.get("a") == 1
    clock.advance(0.1)
    assert notes.get("a") is None


@pytest.mark.parametrize("seconds", [0.0, -5.0])
def test_an_entry_without_time_has_expired(notes: TTLCache[str, int], seconds: float) -> None:
    """A token that has expired grants nothing."""
    notes.put("a", 1, seconds)
    assert notes.get("a") is None


def test_an_entry_is_replaced(notes: TTLCache[str, int], clock: Clock) -> None:
    """Both value and time, even if the new time is shorter."""
    notes.put("a", 1, 100)
    notes.put("a", 0, 10)
    assert notes.get("a") == 0
    clock.advance(10)
    assert notes.get("a") is None


def test_a_dropped_entry_is_gone(notes: TTLCache[str, int]) -> None:
    """Dropping an unknown key does nothing."""
    notes.put("a", 1, 10)
    notes.drop("a")
    notes.drop("b")
    assert notes.get("a") is None


def test_expired_entries_are_removed(clock: Clock) -> None:
    """Even if there is room: entries of tokens would fill the memory for hours."""

    class Value:
        pass

    notes: TTLCache[int, Value] = TTLCache(clock, limit=1000)
    kept = []
    for key in range(10):
        value = Value()
        kept.append(weakref.ref(value))
        notes.put(key, value, 10)
        del value
    clock.advance(10)
    for key in range(10, 15):
        notes.put(key, Value(), 10)
    assert [each() for each in kept] == [None] * 10
    assert all(notes.get(key) for key in range(10, 15))


def test_the_oldest_entry_gives_way(notes: TTLCache[str, int]) -> None:
    """An entry that is set again is new."""
    for key in "abcad":
        notes.put(key, 1, 10)
    assert [key for key in "abcd" if notes.get(key)] == ["a", "c", "d"]


def test_an_entry_from_the_future_has_expired(notes: TTLCache[str, int], clock: Clock) -> None:
    """It does not come back when that time comes."""
    notes.put("a", 1, 10)
    clock.rightNow -= 5
    assert notes.get("a") is None
    clock.advance(6)
    assert notes.get("a") is None
