"""A client that takes nothing of what is sent to it."""

from __future__ import annotations

from twisted.internet.task import Clock

from dockmirror.http.write_timeout import WriteTimeout


def test_one_that_lasts() -> None:
    """Is ended, counted from when it began, and not from one before it."""
    clock, ended = Clock(), []
    stall = WriteTimeout(10, lambda: ended.append(clock.seconds()), clock)
    stall.begin()
    clock.advance(6)
    stall.over()
    stall.begin()
    assert len(clock.getDelayedCalls()) == 1
    clock.pump([4, 5])
    assert ended == []
    clock.advance(1)
    assert ended == [16]


def test_one_that_is_over() -> None:
    """Is not looked at again; neither is one of a client that has gone."""
    clock, ended = Clock(), []
    stall = WriteTimeout(10, lambda: ended.append(clock.seconds()), clock)
    stall.begin()
    stall.over()
    clock.advance(10)
    stall.begin()
    stall.forget()
    stall.forget()
    assert (clock.getDelayedCalls(), ended) == ([], [])
