"""Waits that are interrupted."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred

from dockmirror.concurrency.interrupt import Interrupt

from ..answering import watch


class Interrupted(Exception):
    """The reason of an interrupt."""


def wait(interrupt: Interrupt, deferred: Deferred[str]) -> list[str | BaseException]:
    """Return what comes of the wait."""
    waiting: Deferred[str] = Deferred.fromCoroutine(interrupt.wait(lambda: deferred))
    return watch(waiting)


def test_a_wait_that_is_not_interrupted_returns_its_result() -> None:
    """A wait returns what comes of the thing that is waited for."""
    deferred: Deferred[str] = Deferred()
    outcome = wait(Interrupt(), deferred)
    deferred.callback("done")
    assert outcome == ["done"]


def test_an_interrupt_ends_the_wait_that_is_going_on() -> None:
    """An interrupt cancels the thing that is waited for, and raises the reason."""
    interrupt, reason = Interrupt(), Interrupted()
    deferred: Deferred[str] = Deferred()
    outcome = wait(interrupt, deferred)
    interrupt.set(reason)
    assert (outcome, deferred.called) == ([reason], True)


def test_an_interrupt_ends_the_next_wait() -> None:
    """An interrupt without a wait ends the next one before it begins; its first reason counts."""
    interrupt, reason = Interrupt(), Interrupted()
    interrupt.set(reason)
    interrupt.set(Interrupted())
    deferred: Deferred[str] = Deferred()
    assert (wait(interrupt, deferred), deferred.called) == ([reason], False)
    assert wait(interrupt, deferred) == []


def test_a_wait_may_be_interrupted_as_it_begins() -> None:
    """An interrupt from within what begins the wait ends it as well."""
    interrupt = Interrupt()
    deferred: Deferred[str] = Deferred()

    def begin() -> Deferred[str]:
        interrupt.set(Interrupted())
        return deferred

    assert isinstance(watch(interrupt.wait(begin))[0], Interrupted)
    assert deferred.called


def test_a_wait_may_be_cancelled_by_others() -> None:
    """A cancellation that is no interrupt is passed on."""
    deferred: Deferred[str] = Deferred()
    outcome = wait(Interrupt(), deferred)
    deferred.cancel()
    assert isinstance(outcome[0], CancelledError)


def test_an_interrupt_can_be_checked_without_a_wait() -> None:
    """A check raises the reason once."""
    interrupt = Interrupt()
    interrupt.set(Interrupted())
    with pytest.raises(Interrupted):
        interrupt.check()
    interrupt.check()
