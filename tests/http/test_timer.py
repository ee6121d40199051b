"""What is done at a time, unless something else comes first."""

from __future__ import annotations

from twisted.internet.task import Clock

from dockmirror.http.timer import Timer


def test_one_thing_at_a_time() -> None:
    """What is set takes the place of what was, also of what was done; cleared, nothing is done."""
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
