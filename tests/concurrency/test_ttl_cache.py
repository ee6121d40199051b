"""Notes: what holds for a while."""

from __future__ import annotations

import weakref

import pytest
from twisted.internet.task import Clock

from dockmirror.concurrency.ttl_cache import TTLCache


@pytest.fixture
def clock() -> Clock:
    """Not at its very beginning."""
    clock = Clock()
    clock.advance(1000)
    return clock


@pytest.fixture
def notes(clock: Clock) -> TTLCache[str, int]:
    """None yet, and room for three."""
    return TTLCache(clock, most=3)


def test_a_note_holds_for_its_time(notes: TTLCache[str, int], clock: Clock) -> None:
    """To the second."""
    notes.put("a", 1, 10)
    clock.advance(9.9)
    assert notes.get("a") == 1
    clock.advance(0.1)
    assert notes.get("a") is None


@pytest.mark.parametrize("seconds", [0.0, -5.0])
def test_without_time_nothing_holds(notes: TTLCache[str, int], seconds: float) -> None:
    """A token that has ended grants nothing."""
    notes.put("a", 1, seconds)
    assert notes.get("a") is None


def test_a_new_note_replaces_the_old(notes: TTLCache[str, int], clock: Clock) -> None:
    """Value and time, also by less."""
    notes.put("a", 1, 100)
    notes.put("a", 0, 10)
    assert notes.get("a") == 0
    clock.advance(10)
    assert notes.get("a") is None


def test_what_is_dropped_does_not_hold(notes: TTLCache[str, int]) -> None:
    """And what was never noted may be dropped."""
    notes.put("a", 1, 10)
    notes.drop("a")
    notes.drop("b")
    assert notes.get("a") is None


def test_what_has_ended_is_not_kept(clock: Clock) -> None:
    """Although there were room: what is noted of each token would fill the memory for hours."""

    class Value:
        pass

    notes: TTLCache[int, Value] = TTLCache(clock, most=1000)
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


def test_the_oldest_is_forgotten(notes: TTLCache[str, int]) -> None:
    """Where there is no room; one that is noted again is new."""
    for key in "abcad":
        notes.put(key, 1, 10)
    assert [key for key in "abcd" if notes.get(key)] == ["a", "c", "d"]


def test_a_note_from_a_time_to_come_does_not_hold(notes: TTLCache[str, int], clock: Clock) -> None:
    """Nor does it when that time has come."""
    notes.put("a", 1, 10)
    clock.rightNow -= 5
    assert notes.get("a") is None
    clock.advance(6)
    assert notes.get("a") is None
