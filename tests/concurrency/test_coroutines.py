"""Waits for several coroutines, those that are interrupted, and results that callers share."""

from __future__ import annotations

import weakref

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from dockmirror.concurrency.coroutines import Interrupt, SingleFlight, TTLCache, filter_in_turns, gather

from ..answering import now, watch


async def is_even(number: int) -> bool:
    return number % 2 == 0


def test_a_selection_asks_about_no_more_items_than_it_needs() -> None:
    numbers = iter(range(100))
    assert now(filter_in_turns(numbers, is_even, Clock(), 3)) == [0, 2, 4]
    assert next(numbers) == 5
    assert now(filter_in_turns(range(5), is_even, Clock())) == [0, 2, 4]


def test_the_reactor_works_during_a_long_selection() -> None:
    """After each few milliseconds; a client that leaves ends it."""
    clock, asked = Clock(), list[int]()

    async def is_wanted(number: int) -> bool:
        asked.append(number)
        clock.rightNow += 0.002
        return await is_even(number)

    outcome = watch(filter_in_turns(range(10), is_wanted, clock))
    assert (outcome, asked) == ([], [0, 1, 2])
    clock.advance(0)
    assert outcome == [[0, 2, 4, 6, 8]]
    selection = Deferred.fromCoroutine(filter_in_turns(range(10), is_wanted, clock))
    outcome = watch(selection)
    selection.cancel()
    assert isinstance(outcome[0], CancelledError)
    assert not clock.getDelayedCalls()


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


class Work:
    """Work that ends when the test says so.

    :ivar runs: fire to end each run.
    """

    def __init__(self) -> None:
        self.runs: list[Deferred[str]] = []
        self.flight: SingleFlight[str, str] = SingleFlight()

    async def _run(self) -> str:
        self.runs.append(Deferred())
        return await self.runs[-1]

    def get(self, key: str = "key") -> Deferred[str]:
        return Deferred.fromCoroutine(self.flight.get(key, self._run))


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.mark.parametrize("outcome", ["done", KeyError("broken")])
def test_concurrent_callers_share_one_run(work: Work, outcome: str | Exception) -> None:
    """Its failure, too; neither is kept for later callers, and another key is other work."""
    outcomes = [watch(work.get()) for _ in range(3)]
    other = watch(work.get("other"))
    assert (len(work.runs), outcomes) == (2, [[], [], []])
    work.runs[0].errback(outcome) if isinstance(outcome, Exception) else work.runs[0].callback(outcome)
    assert (outcomes, other) == ([[outcome]] * 3, [])
    again = watch(work.get())
    work.runs[2].callback("again")
    assert again == ["again"]


def test_work_may_finish_at_once() -> None:
    """No turn of the reactor is needed."""
    flight: SingleFlight[str, str] = SingleFlight()

    async def finish() -> str:
        return "done"

    assert now(flight.get("key", finish)) == now(flight.get("key", finish)) == "done"


@pytest.mark.parametrize("leaver", [0, 1, 2])
def test_a_cancelled_caller_does_not_cancel_the_work(work: Work, leaver: int) -> None:
    """Not even the one that started it."""
    waiting = [work.get() for _ in range(3)]
    outcomes = [watch(waiter) for waiter in waiting]
    waiting[leaver].cancel()
    work.runs[0].callback("done")
    assert [type(error) for error in outcomes.pop(leaver)] == [CancelledError]
    assert outcomes == [["done"]] * 2


def test_work_goes_on_without_callers(work: Work) -> None:
    """A later caller joins it; a failure without callers is dropped."""
    for end in (lambda run: run.callback("done"), lambda run: run.errback(KeyError())):
        waiter = work.get()
        watch(waiter)
        waiter.cancel()
        runs = len(work.runs)
        late = watch(work.get()) if runs == 1 else ["done"]
        end(work.runs[-1])
        assert (len(work.runs), late) == (runs, ["done"])


def test_an_outcome_may_cancel_another_caller(work: Work) -> None:
    """Calling again starts new work."""
    waiting = [work.get() for _ in range(3)]
    again: list[list[str | BaseException]] = []

    def cancel_second(outcome: str) -> str:
        waiting[1].cancel()
        again.append(watch(work.get()))
        return outcome

    waiting[0].addCallback(cancel_second)
    outcomes = [watch(waiter) for waiter in waiting]
    work.runs[0].callback("done")
    assert (outcomes[0], outcomes[2]) == (["done"], ["done"])
    assert [type(error) for error in outcomes[1]] == [CancelledError]
    assert (len(work.runs), again) == (2, [[]])


@pytest.fixture
def clock() -> Clock:
    """Return a clock that does not stand at 0."""
    clock = Clock()
    clock.advance(1000)
    return clock


@pytest.fixture
def cache(clock: Clock) -> TTLCache[str, int]:
    """Return an empty cache of at most three entries."""
    return TTLCache(clock, limit=3)


@pytest.mark.parametrize("seconds", [10.0, 0.5, 0.0, -5.0])
def test_an_entry_expires_after_its_time(cache: TTLCache[str, int], clock: Clock, seconds: float) -> None:
    """It may have none, as an expired token; an entry that is set again has its new value and time."""
    cache.put("a", 0, 100)
    cache.put("a", 1, seconds)
    if seconds > 0:
        clock.advance(seconds - 0.1)
        assert cache.get("a") == 1
        clock.advance(0.1)
    assert cache.get("a") is None


def test_a_dropped_entry_is_gone(cache: TTLCache[str, int]) -> None:
    """Dropping an unknown key does nothing."""
    cache.put("a", 1, 10)
    cache.drop("a")
    cache.drop("b")
    assert cache.get("a") is None


def test_expired_entries_are_removed(clock: Clock) -> None:
    """Even if there is room: entries of tokens would fill the memory for hours."""

    class Value:
        pass

    cache: TTLCache[int, Value] = TTLCache(clock, limit=1000)
    references = []
    for key in range(10):
        value = Value()
        references.append(weakref.ref(value))
        cache.put(key, value, 10)
        del value
    clock.advance(10)
    for key in range(10, 15):
        cache.put(key, Value(), 10)
    assert [each() for each in references] == [None] * 10
    assert all(cache.get(key) for key in range(10, 15))


def test_the_oldest_entry_is_dropped_when_there_are_too_many(cache: TTLCache[str, int]) -> None:
    """An entry that is set again is new."""
    for key in "abcad":
        cache.put(key, 1, 10)
    assert [key for key in "abcd" if cache.get(key)] == ["a", "c", "d"]


def test_an_entry_from_the_future_has_expired(cache: TTLCache[str, int], clock: Clock) -> None:
    """It does not come back when that time comes."""
    cache.put("a", 1, 10)
    clock.rightNow -= 5
    assert cache.get("a") is None
    clock.advance(6)
    assert cache.get("a") is None
