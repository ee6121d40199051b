"""Timers that keep to their seconds when the machine's clock is set back."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from twisted.internet.task import Clock

from dockmirror.system.reactor_services import ClockStepGuard, GracefulShutdown, ReactorLagMonitor

HOUR = 3600.0


class Machine(Clock):
    """A clock that can be set, and what it cannot touch."""

    def __init__(self) -> None:
        super().__init__()
        self.rightNow = 1_000_000.0
        self.passed = 0.0

    def run(self, seconds: float) -> None:
        """Time passes."""
        self.passed += seconds
        self.advance(seconds)

    def callFromThread(self, work: Callable[..., Any], *arguments: Any) -> None:
        work(*arguments)


@pytest.fixture
def machine() -> Machine:
    """It has run for a while."""
    machine = Machine()
    machine.run(100)
    return machine


@pytest.fixture
def steady(machine: Machine) -> ClockStepGuard:
    """Has looked once; its thread, which would look again, is not waited for."""
    steady = ClockStepGuard(machine, lambda: machine.passed)
    steady.startService()
    steady.stopService()
    return steady


@pytest.mark.parametrize("back", [5.0, HOUR])
def test_a_clock_that_is_set_back(machine: Machine, steady: ClockStepGuard, back: float) -> None:
    """Prolongs nothing by more than it took to see."""
    fired = list[str]()
    machine.callLater(0.5, fired.append, "overdue")
    machine.callLater(10, fired.append, "a deadline")
    machine.rightNow -= back
    machine.run(1)
    steady.check()
    machine.run(0)
    assert fired == ["overdue"]
    machine.run(8.9)
    assert fired == ["overdue"]
    machine.run(0.2)
    assert fired == ["overdue", "a deadline"]


def test_what_was_set_since(machine: Machine, steady: ClockStepGuard) -> None:
    """A timer that was set after the clock step keeps its time."""
    fired = list[str]()
    machine.rightNow -= HOUR
    machine.callLater(60, fired.append, "since")
    machine.run(1)
    steady.check()
    machine.run(58)
    assert fired == []
    machine.run(2)
    assert fired == ["since"]


@pytest.mark.parametrize("by", [-0.5, 0.0, 5.0, HOUR])
def test_a_clock_that_is_not(machine: Machine, steady: ClockStepGuard, by: float) -> None:
    """Corrections of less than a second, and a clock that goes forward, are left to the reactor."""
    machine.callLater(2 * HOUR, str)
    (before,) = (timer.getTime() for timer in machine.getDelayedCalls())
    machine.rightNow += by
    steady.check()
    assert [timer.getTime() for timer in machine.getDelayedCalls()] == [before]


def test_it_ends_with_the_service(machine: Machine, steady: ClockStepGuard) -> None:
    """The thread ends with the service, and leaves no timer."""
    assert machine.getDelayedCalls() == []
    steady.startService()
    assert steady.running
    steady.stopService()
    assert not steady.running


def test_it_is_told_every_second() -> None:
    """The lag is measured every second until the service stops."""
    clock, told = Clock(), list[float]()
    lag = ReactorLagMonitor(clock, told.append)
    lag.startService()
    clock.advance(1)
    clock.advance(4.5)
    clock.advance(1)
    assert told == [pytest.approx(0), pytest.approx(3.5), pytest.approx(0)]
    lag.stopService()
    lag.stopService()
    clock.advance(5)
    assert len(told) == 3
    assert clock.getDelayedCalls() == []


class Reactor:
    """Counts how often it is stopped."""

    def __init__(self) -> None:
        self.running: list[Callable[[], None]] = []
        self.calls: list[Callable[[], None]] = []
        self.stopped = 0

    def callWhenRunning(self, call: Callable[[], None]) -> None:
        self.running.append(call)

    def callFromThread(self, call: Callable[..., None], *arguments: Any) -> None:
        self.calls.append(partial(call, *arguments))

    def stop(self) -> None:
        self.stopped += 1


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_it_is_asked_for_once(first: signal.Signals) -> None:
    """The reactor is stopped once; the first and the second signal are reported, and no other."""
    reactor, reported = Reactor(), list[object]()
    shutdown = GracefulShutdown(
        reactor, on_first=reported.append, on_second=partial(reported.append, "second")
    )
    shutdown.startService()
    for call in reactor.running:
        call()
    for each in (first, signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), each)
    assert reactor.stopped == 0
    for call in reactor.calls:
        call()
    assert reactor.stopped == 1
    assert len(reactor.calls) == 3
    assert reported == [first, "second"]
