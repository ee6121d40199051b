"""How late the event loop is."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from dockmirror.system.reactor_lag import ReactorLagMonitor


def test_it_is_told_every_second() -> None:
    """By how much the timer was late; it ends with the service."""
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
