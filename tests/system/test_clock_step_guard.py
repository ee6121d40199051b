"""Timers that keep to their seconds when the machine's clock is set back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from dockmirror.system.clock_step_guard import ClockStepGuard

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
        """See ``IReactorFromThreads``."""
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
    """Goes by the clock as it is now."""
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
    """And leaves no timer."""
    assert machine.getDelayedCalls() == []
    steady.startService()
    assert steady.running
    steady.stopService()
    assert not steady.running
