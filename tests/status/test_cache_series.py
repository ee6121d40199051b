"""The last hours."""

from __future__ import annotations

from twisted.internet.task import Clock

from dockmirror.status.cache_series import PERIOD, SERIES_SIZE, CacheSeries, SeriesSlot

BEGIN = 1_000_000 * PERIOD


def series(clock: Clock) -> tuple[CacheSeries, memoryview]:
    """One with nothing in it, at that time."""
    clock.advance(BEGIN)
    memory = memoryview(bytearray(SERIES_SIZE))
    return CacheSeries(clock, memory), memory


def test_lookups_count_in_their_slot() -> None:
    """Slots without lookups are listed, too."""
    clock = Clock()
    kept, memory = series(clock)
    kept.asked(hit=True, held=10)
    kept.asked(hit=False)
    clock.advance(2 * PERIOD)
    CacheSeries(clock, memory).asked(hit=True, held=12)
    assert kept.slots()[-3:] == [
        SeriesSlot(BEGIN, 2, 1, 10), SeriesSlot(BEGIN + PERIOD), SeriesSlot(BEGIN + 2 * PERIOD, 1, 1, 12)
    ]  # fmt: skip
    assert len(kept.slots()) == 144


def test_old_slots_are_dropped() -> None:
    """Their place is taken by new ones."""
    clock = Clock()
    kept, _ = series(clock)
    kept.asked(hit=True)
    clock.advance(143 * PERIOD)
    assert kept.slots()[0] == SeriesSlot(BEGIN, 1, 1)
    clock.advance(PERIOD)
    assert {slot.asked for slot in kept.slots()} == {0}
    kept.asked(hit=False)
    assert kept.slots()[-1] == SeriesSlot(BEGIN + 144 * PERIOD, 1, 0)


def test_a_clock_set_back_hides_later_slots() -> None:
    """Slots in the future are not listed."""
    clock = Clock()
    kept, memory = series(clock)
    kept.asked(hit=True)
    earlier = Clock()
    earlier.advance(BEGIN - PERIOD)
    assert {slot.asked for slot in CacheSeries(earlier, memory).slots()} == {0}
