"""Usage in windows of time."""

from __future__ import annotations

from mmap import mmap

import pytest

from dockmirror.http.usage import COUNTERS_SIZE, NetworkUsage, RateCounters, Window

ONE, OTHER = b"one", b"other"


@pytest.fixture
def counters() -> RateCounters:
    return RateCounters(memoryview(mmap(-1, COUNTERS_SIZE)))


def test_a_window_begins_with_the_first_request(counters: RateCounters) -> None:
    """One that began in the future has ended: the clock was set back."""
    counters.add(ONE, 100.0, 60, NetworkUsage(1))
    counters.add(ONE, 130.0, 60, NetworkUsage(1, 5, 3))
    assert counters.current_window(ONE, 159.0, 60) == Window(160.0, NetworkUsage(2, 5, 3))
    assert counters.current_window(OTHER, 159.0, 60) == Window(219.0)
    assert counters.current_window(ONE, 160.0, 60) == Window(220.0)
    counters.add(ONE, 161.0, 60, NetworkUsage(0, 2**40))
    assert counters.current_window(ONE, 170.0, 60) == Window(221.0, NetworkUsage(0, 2**40))
    assert counters.current_window(ONE, 100.0, 60) == Window(160.0)


def test_ended_windows_make_room_for_long_ones() -> None:
    """A budget of hours outlives any number of windows of a minute."""
    few = RateCounters(memoryview(mmap(-1, 8 * 40)))
    few.add(ONE, 0.0, 21_600, NetworkUsage(1))
    for number in range(100):
        few.add(b"%d" % number, 10.0 * number, 60, NetworkUsage(1))
    assert few.current_window(ONE, 1000.0, 21_600).used.requests == 1


def test_the_key_whose_window_ends_first_is_evicted() -> None:
    few = RateCounters(memoryview(mmap(-1, 8 * 40)))
    keys = [b"%d" % number for number in range(10)]
    for number, key in enumerate(keys):
        few.add(key, float(number), 600, NetworkUsage(1))
    requests = [few.current_window(key, 20.0, 600).used.requests for key in keys]
    assert requests == [0, 0, *[1] * 8]
