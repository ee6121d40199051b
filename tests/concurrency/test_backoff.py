"""Exponential backoff."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dockmirror.concurrency.backoff import Backoff, Pause


@pytest.fixture
def clock() -> Clock:
    """A clock that does not stand at 0."""
    clock = Clock()
    clock.advance(1000)
    return clock


@pytest.fixture
def backoff(clock: Clock) -> Backoff[str, str]:
    """Pauses of 1, 2, 4 and at most 5 seconds."""
    return Backoff(clock, 1.0, 5.0)


def test_pauses_grow_to_the_longest(clock: Clock, backoff: Backoff[str, str]) -> None:
    """Each failure after a pause doubles it, up to the longest."""
    lengths = []
    for _ in range(5):
        lengths.append(backoff.failed("a", "down"))
        clock.advance(lengths[-1])
        assert backoff.pause("a") is None
    assert lengths == [1, 2, 4, 5, 5]


def test_factor(clock: Clock) -> None:
    """Pauses grow by the factor that is given."""
    backoff: Backoff[str, None] = Backoff(clock, 1.0, 100.0, factor=8.0)
    lengths = []
    for _ in range(4):
        lengths.append(backoff.failed("a", None))
        clock.advance(lengths[-1])
    assert lengths == [1, 8, 64, 100]


def test_a_pause_has_a_key_and_a_reason(clock: Clock, backoff: Backoff[str, str]) -> None:
    """One key's failure does not pause another; the reason is kept as long as the pause."""
    backoff.failed("a", "down")
    assert backoff.pause("a") == Pause(clock.seconds() + 1, 1.0, "down")
    assert backoff.pause("b") is None


def test_failures_during_a_pause_do_not_lengthen_it(clock: Clock, backoff: Backoff[str, str]) -> None:
    """They restart it, since each was attempted before the pause began."""
    backoff.failed("a", "down")
    clock.advance(0.5)
    assert backoff.failed("a", "still down") == 1
    clock.advance(0.75)
    assert backoff.pause("a") is not None
    clock.advance(0.25)
    assert backoff.pause("a") is None


def test_success_starts_over(backoff: Backoff[str, str]) -> None:
    """A success ends the pause, and the next one is the first again."""
    backoff.failed("a", "down")
    backoff.succeeded("a")
    assert backoff.pause("a") is None
    assert backoff.failed("a", "down") == 1


def test_a_quiet_time_starts_over(clock: Clock, backoff: Backoff[str, str]) -> None:
    """When the longest pause has passed since the last one, the next is the first again."""
    backoff.failed("a", "down")
    clock.advance(1.0 + 5.0)
    assert backoff.failed("a", "down") == 1


def test_a_length_that_is_named(clock: Clock, backoff: Backoff[str, str]) -> None:
    """The length that the other side names is taken, even above the longest."""
    assert backoff.failed("a", "429", seconds=60.0) == 60
    clock.advance(59)
    assert backoff.pause("a") is not None


def test_a_clock_that_is_set_back(backoff: Backoff[str, str], clock: Clock) -> None:
    """A pause from a time to come is none."""
    backoff.failed("a", "down")
    clock.rightNow -= 100
    assert backoff.pause("a") is None
