"""Tasks that run periodically."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from dockmirror.concurrency.periodic_task import BusyTask, PeriodicTask

PERIOD = 10.0


class Work:
    """A task each of whose runs ends when the test says so.

    :ivar times: the beginnings of the runs.
    :ivar cancelled: the number of cancelled runs.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.times: list[float] = []
        self.cancelled = 0
        self.current: Deferred[None] = Deferred()

    def start(self, at_once: bool = False) -> PeriodicTask:
        task = PeriodicTask(self._run, PERIOD, self.clock, "it cannot be done", at_once)
        task.startService()
        return task

    async def _run(self) -> None:
        self.times.append(self.clock.seconds())
        self.current = Deferred()
        try:
            await self.current
        except CancelledError:
            self.cancelled += 1
            raise


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.mark.parametrize(("at_once", "times"), [(False, [10.0, 20.0]), (True, [0.0, 10.0, 20.0])])
def test_a_task_runs_once_a_period(work: Work, at_once: bool, times: list[float]) -> None:
    work.start(at_once)
    for _ in range(2):
        if work.times:
            work.current.callback(None)
        work.clock.advance(PERIOD)
    assert work.times == times


def test_runs_do_not_overlap(work: Work) -> None:
    """A long run delays the next."""
    work.start()
    work.clock.pump([PERIOD] * 3)
    assert work.times == [10.0]
    work.current.callback(None)
    work.clock.advance(PERIOD)
    assert work.times == [10.0, 40.0]


def test_a_failed_run_is_logged_and_repeated(work: Work) -> None:
    """The next run comes as planned."""
    work.start()
    work.clock.advance(PERIOD)
    with capturedLogs() as events:
        work.current.errback(ValueError("why"))
    work.clock.advance(PERIOD)
    assert work.times == [10.0, 20.0]
    [event] = events
    assert event["trouble"] == "it cannot be done"
    assert isinstance(event["log_failure"].value, ValueError)


@pytest.mark.parametrize("begun", [False, True])
def test_stopping_cancels_the_run(work: Work, begun: bool) -> None:
    """It is not logged, and no run follows."""
    task = work.start()
    work.clock.advance(PERIOD if begun else 1)
    with capturedLogs() as events:
        task.stopService()
    work.clock.pump([PERIOD] * 3)
    assert (len(work.times), work.cancelled, events) == (begun, begun, [])
    assert work.clock.getDelayedCalls() == []


def test_an_idle_task_has_no_timer() -> None:
    """It runs once per period while it is busy, and after that only when it is woken."""
    clock, times, left = Clock(), list[float](), [3]

    def work() -> None:
        times.append(clock.seconds())
        left[0] -= 1

    task = BusyTask(work, lambda: left[0] > 0, PERIOD, clock)
    left[0] = 0
    task.startService()
    assert clock.getDelayedCalls() == []
    left[0] = 3
    for _ in range(2):
        task.wake()
    clock.pump([PERIOD] * 5)
    assert times == [PERIOD, 2 * PERIOD, 3 * PERIOD]
    assert clock.getDelayedCalls() == []
    task.wake()
    task.stopService()
    task.wake()
    assert clock.getDelayedCalls() == []


def test_a_task_that_is_busy_at_the_start_runs() -> None:
    clock, times = Clock(), list[float]()
    BusyTask(lambda: times.append(clock.seconds()), lambda: not times, PERIOD, clock).startService()
    clock.advance(PERIOD)
    assert times == [PERIOD]
