"""Counts of cache lookups by time, and of pulls by repository."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dockmirror.status.cache_series import (
    PERIOD,
    PULL_COUNTS_SIZE,
    SERIES_SIZE,
    CacheSeries,
    PullCounts,
    RepositoryPulls,
    SeriesSlot,
)

BEGIN = 1_000_000 * PERIOD


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(BEGIN)
    return clock


@pytest.fixture
def memory() -> memoryview:
    return memoryview(bytearray(SERIES_SIZE))


def test_lookups_count_in_their_slot(clock: Clock, memory: memoryview) -> None:
    """Slots without lookups are listed, too."""
    series = CacheSeries(clock, memory)
    series.record_lookup(hit=True, held=10)
    series.record_lookup(hit=False)
    clock.advance(2 * PERIOD)
    CacheSeries(clock, memory).record_lookup(hit=True, held=12)
    assert series.slots()[-3:] == [
        SeriesSlot(BEGIN, 2, 1, 10), SeriesSlot(BEGIN + PERIOD), SeriesSlot(BEGIN + 2 * PERIOD, 1, 1, 12)
    ]  # fmt: skip
    assert len(series.slots()) == 144


def test_new_slots_replace_old_ones(clock: Clock, memory: memoryview) -> None:
    """A clock that was set back hides later slots."""
    series = CacheSeries(clock, memory)
    series.record_lookup(hit=True)
    clock.advance(-PERIOD)
    assert {slot.asked for slot in series.slots()} == {0}
    clock.advance(144 * PERIOD)
    assert series.slots()[0] == SeriesSlot(BEGIN, 1, 1)
    clock.advance(PERIOD)
    assert {slot.asked for slot in series.slots()} == {0}
    series.record_lookup(hit=False)
    assert series.slots()[-1] == SeriesSlot(BEGIN + 144 * PERIOD, 1, 0)


def test_the_most_pulled_repositories_come_first() -> None:
    """All processes count together; long names are cut."""
    memory = memoryview(bytearray(PULL_COUNTS_SIZE))
    one, other = PullCounts(memory), PullCounts(memory)
    for each in (one, other, one):
        each.record_pull("docker.io/library/busybox", manifests=1, bytes=500)
    one.record_pull("ghcr.io/a/b", manifests=1, bytes=7)
    other.record_pull("ghcr.io/a/b", bytes=1_000)
    other.record_pull("é" * 200, bytes=9)
    assert one.list_most(2) == [
        RepositoryPulls("docker.io/library/busybox", 3, 1500), RepositoryPulls("ghcr.io/a/b", 1, 1007)
    ]  # fmt: skip
    assert one.list_most(9)[2].repository == "é" * 150


def test_a_full_table_drops_the_least_pulled_repositories() -> None:
    counts = PullCounts(memoryview(bytearray(PULL_COUNTS_SIZE // 100)))
    for _ in range(3):
        counts.record_pull("often", manifests=1)
    for number in range(1000):
        counts.record_pull(f"once/{number}", manifests=1)
    most = counts.list_most(1000)
    assert most[0] == RepositoryPulls("often", 3, 0)
    assert len(most) <= 41
