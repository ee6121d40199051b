"""The number of connections grows only while more of them make downloads faster."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.task import Clock

from dockmirror.config.notation import MAX_SEGMENTS
from dockmirror.middleware.blob_fetch import HOLD, MIN_BYTES, AdaptiveSegments

MEGABYTE = 1024 * 1024
TURN = 0.05


def transfer(
    line: AdaptiveSegments, clock: Clock, seconds: float, rate: Callable[[int], float], downloads: int = 1
) -> list[int]:
    """Keep as many connections open as allowed, and return the numbers over time.

    :param rate: bytes per second of so many connections together.
    """
    numbers, opened = [], 0
    for _ in range(round(seconds / TURN)):
        wanted = downloads * line.segments()
        while opened != wanted:
            (line.record_open if opened < wanted else line.record_close)()
            opened += 1 if opened < wanted else -1
        numbers.append(line.segments())
        clock.advance(TURN)
        line.record_bytes(round(rate(opened) * TURN))
    for _ in range(opened):
        line.record_close()
    return numbers


def each(bytes_per_second: float) -> Callable[[int], float]:
    return lambda opened: opened * bytes_per_second


def together(bytes_per_second: float) -> Callable[[int], float]:
    return lambda opened: bytes_per_second


@pytest.mark.parametrize("megabytes", [3, 20, 500])
@pytest.mark.parametrize("downloads", [1, 3])
def test_connections_that_are_each_slow_grow_in_number(megabytes: int, downloads: int) -> None:
    clock = Clock()
    numbers = transfer(
        AdaptiveSegments(clock, 1000, MAX_SEGMENTS), clock, 6, each(megabytes * MEGABYTE), downloads
    )
    assert numbers[-1] == MAX_SEGMENTS
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("megabytes", [3, 20, 500])
@pytest.mark.parametrize("downloads", [1, 3])
def test_a_line_that_is_full_gets_one_connection(megabytes: int, downloads: int) -> None:
    """It is tried again after a while."""
    clock = Clock()
    line = AdaptiveSegments(clock, 1000, MAX_SEGMENTS)
    numbers = transfer(line, clock, HOLD, together(megabytes * MEGABYTE), downloads)
    assert numbers[:200].count(2) <= 2 / TURN
    assert set(numbers[100:]) == {1}
    assert transfer(line, clock, 6, each(megabytes * MEGABYTE), downloads)[-1] == MAX_SEGMENTS


def test_it_stops_where_the_line_is_full() -> None:
    """Four connections fill it."""
    clock = Clock()
    line = AdaptiveSegments(clock, 1000, MAX_SEGMENTS)
    numbers = transfer(line, clock, 20, lambda opened: min(opened, 4) * 10 * MEGABYTE)
    assert numbers[-1] == 4


def test_little_and_idle_time_say_nothing() -> None:
    clock = Clock()
    line = AdaptiveSegments(clock, 1000, MAX_SEGMENTS)
    assert set(transfer(line, clock, 3, lambda _: MIN_BYTES / 4)) == {1}
    for _ in range(20):
        transfer(line, clock, 0.5, each(10 * MEGABYTE))
        clock.advance(100.0)
    assert line.segments() == MAX_SEGMENTS


def test_half_of_the_connections_are_left_to_others() -> None:
    clock = Clock()
    line = AdaptiveSegments(clock, 16, MAX_SEGMENTS)
    transfer(line, clock, 6, each(10 * MEGABYTE))
    assert line.segments() == 8
    for _ in range(8):
        line.record_open()
    assert line.segments() == 1
