"""Timers that enforce the limits of clients."""

from __future__ import annotations

from twisted.internet.task import Clock

from dockmirror.http.limits import Timer, WriteTimeout


def test_setting_a_timer_replaces_the_pending_call() -> None:
    """Clearing it cancels the call."""
    clock, done = Clock(), []
    deadline = Timer(clock)
    deadline.clear()
    deadline.set(1, lambda: done.append("first"))
    deadline.set(2, lambda: done.append("second"))
    clock.advance(2)
    deadline.set(1, lambda: done.append("third"))
    deadline.clear()
    clock.advance(9)
    assert done == ["second"]
    assert clock.getDelayedCalls() == []


def test_a_client_that_reads_nothing_is_timed_out() -> None:
    """The time counts from the latest pause."""
    clock, ended = Clock(), []
    stall = WriteTimeout(10, lambda: ended.append(clock.seconds()), clock)
    stall.start()
    clock.advance(6)
    stall.stop()
    stall.start()
    assert len(clock.getDelayedCalls()) == 1
    clock.pump([4, 5])
    assert ended == []
    clock.advance(1)
    assert ended == [16]


def test_a_client_that_reads_on_is_not_timed_out() -> None:
    """Neither is one that has gone."""
    clock, ended = Clock(), []
    stall = WriteTimeout(10, lambda: ended.append(clock.seconds()), clock)
    stall.start()
    stall.stop()
    clock.advance(10)
    stall.start()
    stall.cancel()
    stall.cancel()
    assert (clock.getDelayedCalls(), ended) == ([], [])
