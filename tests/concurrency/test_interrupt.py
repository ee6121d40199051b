"""Waits that are interrupted."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred

from dockmirror.concurrency.interrupt import Interrupt

from ..answering import watch


class Interrupted(Exception):
    """The reason of an interrupt."""


def wait(interrupt: Interrupt, deferred: Deferred[str]) -> list[str | BaseException]:
    """Return the outcome of the wait."""
    waiting: Deferred[str] = Deferred.fromCoroutine(interrupt.wait(lambda: deferred))
    return watch(waiting)


def test_a_wait_that_is_not_interrupted_has_its_own_outcome() -> None:
    """A result, or a cancellation that is no interrupt."""
    completed, cancelled = Deferred[str](), Deferred[str]()
    outcomes = [wait(Interrupt(), each) for each in (completed, cancelled)]
    completed.callback("done")
    cancelled.cancel()
    assert outcomes[0] == ["done"]
    assert isinstance(outcomes[1][0], CancelledError)


def test_an_interrupt_ends_the_current_wait() -> None:
    """It cancels the awaited Deferred, even if it comes as the wait begins."""
    interrupt, reason = Interrupt(), Interrupted()
    deferred: Deferred[str] = Deferred()
    outcome = wait(interrupt, deferred)
    interrupt.set(reason)
    assert (outcome, deferred.called) == ([reason], True)
    deferred = Deferred()

    def begin() -> Deferred[str]:
        interrupt.set(reason)
        return deferred

    assert (watch(interrupt.wait(begin)), deferred.called) == ([reason], True)


def test_an_interrupt_ends_the_next_wait() -> None:
    """Before it begins; the first reason counts, and a check raises it as well."""
    interrupt, reason = Interrupt(), Interrupted()
    interrupt.set(reason)
    interrupt.set(Interrupted())
    deferred: Deferred[str] = Deferred()
    assert (wait(interrupt, deferred), deferred.called) == ([reason], False)
    assert wait(interrupt, deferred) == []
    deferred.callback("done")
    interrupt.set(reason)
    with pytest.raises(Interrupted):
        interrupt.check()
    interrupt.check()
