"""One piece of work for everyone who asks for it meanwhile."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred

from dockmirror.concurrency.caching import SingleFlight

from ..answering import now, watch


class Work:
    """Begins when it is called, and ends when the test says so."""

    def __init__(self) -> None:
        self.running: list[Deferred[str]] = []

    async def __call__(self) -> str:
        """The outcome."""
        self.running.append(Deferred())
        return await self.running[-1]


@pytest.fixture
def work() -> Work:
    """A new one."""
    return Work()


@pytest.fixture
def joined() -> SingleFlight[str, str]:
    """Nothing runs yet."""
    return SingleFlight()


def test_concurrent_callers_share_one_run(joined: SingleFlight[str, str], work: Work) -> None:
    """The work starts once, and all get its outcome."""
    outcomes = [watch(joined.get("key", work)) for _ in range(3)]
    assert (len(work.running), outcomes) == (1, [[], [], []])
    work.running[0].callback("done")
    assert outcomes == [["done"]] * 3


def test_keys_are_independent(joined: SingleFlight[str, str], work: Work) -> None:
    """Work under another key is other work."""
    one, other = watch(joined.get("one", work)), watch(joined.get("other", work))
    work.running[1].callback("done")
    assert (len(work.running), one, other) == (2, [], ["done"])


def test_outcomes_are_not_cached(joined: SingleFlight[str, str], work: Work) -> None:
    """A later caller starts new work."""
    first = watch(joined.get("key", work))
    work.running[0].callback("first")
    second = watch(joined.get("key", work))
    work.running[1].callback("second")
    assert (first, second) == (["first"], ["second"])


def test_work_may_finish_at_once(joined: SingleFlight[str, str]) -> None:
    """No turn of the reactor is needed."""

    async def done() -> str:
        return "done"

    assert now(joined.get("key", done)) == now(joined.get("key", done)) == "done"


def test_callers_share_a_failure(joined: SingleFlight[str, str], work: Work) -> None:
    """It is not cached, either."""
    outcomes = [watch(joined.get("key", work)) for _ in range(3)]
    error = KeyError("broken")
    work.running[0].errback(error)
    assert outcomes == [[error]] * 3
    again = watch(joined.get("key", work))
    work.running[1].callback("done")
    assert again == ["done"]


@pytest.mark.parametrize("leaver", [0, 1, 2])
def test_a_cancelled_caller_does_not_cancel_the_work(
    joined: SingleFlight[str, str], work: Work, leaver: int
) -> None:
    """Not even the one that started it."""
    waiting = [Deferred.fromCoroutine(joined.get("key", work)) for _ in range(3)]
    outcomes = [watch(waiter) for waiter in waiting]
    waiting[leaver].cancel()
    work.running[0].callback("done")
    left = outcomes.pop(leaver)
    assert [type(error) for error in left] == [CancelledError]
    assert outcomes == [["done"]] * 2


def test_work_goes_on_without_callers(joined: SingleFlight[str, str], work: Work) -> None:
    """A later caller joins it; a failure without callers is dropped."""
    waiter = Deferred.fromCoroutine(joined.get("key", work))
    watch(waiter)
    waiter.cancel()
    late = watch(joined.get("key", work))
    work.running[0].callback("done")
    assert (len(work.running), late) == (1, ["done"])
    waiter = Deferred.fromCoroutine(joined.get("key", work))
    watch(waiter)
    waiter.cancel()
    work.running[1].errback(KeyError())
    assert len(work.running) == 2


def test_an_outcome_may_cancel_another_caller(joined: SingleFlight[str, str], work: Work) -> None:
    """Calling again starts new work."""
    waiting = [Deferred.fromCoroutine(joined.get("key", work)) for _ in range(3)]
    again: list[list[str | BaseException]] = []

    def leave(outcome: str) -> str:
        waiting[1].cancel()
        again.append(watch(joined.get("key", work)))
        return outcome

    waiting[0].addCallback(leave)
    outcomes = [watch(waiter) for waiter in waiting]
    work.running[0].callback("done")
    assert (outcomes[0], outcomes[2]) == (["done"], ["done"])
    assert [type(error) for error in outcomes[1]] == [CancelledError]
    assert (len(work.running), again) == (2, [[]])
