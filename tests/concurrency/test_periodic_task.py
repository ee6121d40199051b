"""Work that is done over and over."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from dockmirror.concurrency.periodic_task import PeriodicTask

PERIOD = 10.0


class Work:
    """What is to be done, each time until somebody says so.

    :ivar times: when it was begun.
    :ivar cancelled: how often it was left.
    """

    def __init__(self, clock: Clock) -> None:
        self.times: list[float] = []
        self.cancelled = 0
        self.doing: Deferred[None] = Deferred()
        self._clock = clock

    async def __call__(self) -> None:
        """Does it."""
        self.times.append(self._clock.seconds())
        self.doing = Deferred()
        try:
            await self.doing
        except CancelledError:
            self.cancelled += 1
            raise


@pytest.fixture
def clock() -> Clock:
    """Wound by each test."""
    return Clock()


@pytest.fixture
def work(clock: Clock) -> Work:
    """Something to be done."""
    return Work(clock)


@pytest.mark.parametrize(("at_once", "times"), [(False, [10.0, 20.0]), (True, [0.0, 10.0, 20.0])])
def test_a_task_runs_once_a_period(clock: Clock, work: Work, at_once: bool, times: list[float]) -> None:
    """Runs follow the period from the start."""
    repeated = PeriodicTask(work, PERIOD, clock, "trouble", at_once)
    repeated.startService()
    for _ in range(2):
        if work.times:
            work.doing.callback(None)
        clock.advance(PERIOD)
    assert work.times == times


def test_runs_do_not_overlap(clock: Clock, work: Work) -> None:
    """A long run delays the next."""
    PeriodicTask(work, PERIOD, clock, "trouble").startService()
    clock.pump([PERIOD] * 3)
    assert work.times == [10.0]
    work.doing.callback(None)
    clock.pump([PERIOD] * 1)
    assert work.times == [10.0, 40.0]


def test_a_failed_run_is_logged_and_repeated(clock: Clock, work: Work) -> None:
    """The next run comes as planned."""
    PeriodicTask(work, PERIOD, clock, "it cannot be done").startService()
    clock.advance(PERIOD)
    with capturedLogs() as events:
        work.doing.errback(ValueError("why"))
    clock.advance(PERIOD)
    assert work.times == [10.0, 20.0]
    [event] = events
    assert event["trouble"] == "it cannot be done"
    assert isinstance(event["log_failure"].value, ValueError)


@pytest.mark.parametrize("begun", [False, True])
def test_stopping_cancels_the_run(clock: Clock, work: Work, begun: bool) -> None:
    """It is not logged, and no run follows."""
    repeated = PeriodicTask(work, PERIOD, clock, "trouble")
    repeated.startService()
    clock.advance(PERIOD if begun else 1)
    with capturedLogs() as events:
        repeated.stopService()
    clock.pump([PERIOD] * 3)
    assert (len(work.times), work.cancelled, events, clock.getDelayedCalls()) == (begun, begun, [], [])
