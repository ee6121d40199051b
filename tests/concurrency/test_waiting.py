"""Waits for several coroutines, and those that are interrupted."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred

from dockmirror.concurrency.coroutines import Interrupt, gather

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


async def result_of(deferred: Deferred[str]) -> str:
    return await deferred


def test_coroutines_are_gathered_in_order() -> None:
    running = [Deferred[str](), Deferred[str]()]
    outcome = watch(gather(map(result_of, running)))
    for each, result in ((running[1], "two"), (running[0], "one")):
        assert outcome == []
        each.callback(result)
    assert outcome == [["one", "two"]]


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_an_error_of_one_coroutine_ends_the_others(is_cancelled: bool) -> None:
    """So does a cancellation of all; what is raised is the error itself."""
    running = [Deferred[str](), Deferred[str]()]
    gathering = Deferred.fromCoroutine(gather(map(result_of, running)))
    outcome, error = watch(gathering), Interrupted()
    if is_cancelled:
        gathering.cancel()
    else:
        running[0].errback(error)
    assert running[1].called
    assert isinstance(outcome[0], CancelledError) if is_cancelled else outcome == [error]
