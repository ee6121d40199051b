"""Usage in windows of time."""

from __future__ import annotations

from mmap import mmap

import pytest

from dockmirror.http.usage import (
    COUNTERS_SIZE,
    LABEL_SIZE,
    LABELLED_COUNTERS_SIZE,
    REFUSALS_SIZE,
    NetworkUsage,
    RateCounters,
    RefusalCounters,
    UsageLimits,
    Window,
)

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


def test_labels_are_kept_until_the_window_ends() -> None:
    counters = RateCounters(memoryview(mmap(-1, LABELLED_COUNTERS_SIZE)), LABEL_SIZE)
    one, other = b"a" * LABEL_SIZE, b"b" * LABEL_SIZE
    for image in (b"x", b"y"):
        counters.add(one + image, 100.0, 60, NetworkUsage(1, 5))
    counters.add(other, 130.0, 60, NetworkUsage(pulls=1))
    counters.add(one + b"x", 130.0, 60, NetworkUsage(1))
    assert sorted(counters.windows(159.0), key=str) == [
        (one, Window(160.0, NetworkUsage(1, 5))),
        (one, Window(160.0, NetworkUsage(2, 5))),
        (other, Window(190.0, NetworkUsage(0, 0, 1))),
    ]
    assert [label for label, _ in counters.windows(160.0)] == [other]


def test_the_share_is_that_of_the_limit_of_which_most_is_used() -> None:
    used = NetworkUsage(3, 50, 1)
    assert UsageLimits(4, 100, 60.0, 2).share(used) == 0.75
    assert UsageLimits(None, 40, 60.0).share(used) == 1.25
    assert UsageLimits(None, None, 60.0).share(used) == 0.0


def test_refusals_are_counted_by_key() -> None:
    refusals = RefusalCounters(memoryview(mmap(-1, REFUSALS_SIZE)))
    for key in (ONE, OTHER, ONE):
        refusals.add(key)
    assert [refusals.count(key) for key in (ONE, OTHER, b"none")] == [2, 1, 0]
