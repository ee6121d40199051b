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


def test_a_client_that_reads_nothing_is_timed_out_from_the_latest_pause() -> None:
    """One that reads on, or has gone, is not."""
    clock, ended = Clock(), []
    timeout = WriteTimeout(10, lambda: ended.append(clock.seconds()), clock)
    timeout.start()
    clock.advance(6)
    timeout.stop()
    clock.advance(4)
    timeout.start()
    assert len(clock.getDelayedCalls()) == 1
    clock.pump([6, 3])
    assert ended == []
    clock.advance(1)
    assert ended == [20]
    timeout.start()
    timeout.cancel()
    timeout.cancel()
    assert clock.getDelayedCalls() == []
