"""Coroutines: results that they share, waits, and blocking calls in threads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")
Key = TypeVar("Key")
Value = TypeVar("Value")
_TURN = 0.005
"""Seconds of work after which other clients come first."""


async def gather(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines at the same time, and return their results in order.

    The first error, and a cancellation, cancels those that still run, and is raised.
    """
    running = [Deferred.fromCoroutine(each) for each in coroutines]
    try:
        return await gatherResults(running, consumeErrors=True)
    except FirstError as error:
        for each in running:
            each.cancel()
        error.subFailure.raiseException()


async def filter_in_turns(
    items: Iterable[T],
    is_wanted: Callable[[T], Awaitable[bool]],
    clock: IReactorTime,
    most: int | None = None,
) -> list[T]:
    """Return the first items that are wanted, or all; in between, the reactor serves other clients."""
    found: list[T] = []
    began = clock.seconds()
    for each in items:
        if not 0 <= clock.seconds() - began < _TURN:
            await deferLater(clock, 0.0)
            began = clock.seconds()
        if await is_wanted(each):
            found.append(each)
            if len(found) == most:
                break
    return found


def shield(work: Awaitable[T], late: Callable[[T], None] = lambda _: None) -> Deferred[T]:
    """Wait for work that goes on if the wait for it is cancelled.

    Cancelling the result ends the wait at once; ``late`` is called with the work's result when that arrives.
    """
    waiting: Deferred[T] = Deferred()

    def forward(outcome: T | Failure) -> None:
        if not waiting.called:
            waiting.callback(outcome)
        elif not isinstance(outcome, Failure):
            late(outcome)

    running = Deferred.fromCoroutine(work if isinstance(work, Coroutine) else _await(work))
    running.addBoth(forward)
    return waiting


async def _await(work: Awaitable[T]) -> T:
    return await work


class Changes:
    """Wakes those who wait for a change."""

    def __init__(self) -> None:
        self._waiting: dict[Deferred[None], None] = {}

    def next(self) -> Deferred[None]:
        """Return a Deferred that fires at the next change."""
        waiting: Deferred[None] = Deferred(lambda waiting: self._waiting.pop(waiting, None))
        self._waiting[waiting] = None
        return waiting

    def notify(self) -> None:
        """Wake all who wait now."""
        waiting, self._waiting = self._waiting, {}
        for each in waiting:
            if not each.called:  # one may have made another leave
                each.callback(None)


class Interrupt:
    """Ends one wait from outside, with a reason: the current one, or else the next one."""

    def __init__(self) -> None:
        self.reason: Exception | None = None
        self._waiting: Deferred[Any] | None = None

    def set(self, reason: Exception) -> None:
        """End the wait; the first reason counts."""
        if self.reason is None:
            self.reason = reason
            if self._waiting is not None:
                self._waiting.cancel()

    def check(self) -> None:
        """Raise the reason, if there is one, and forget it."""
        reason, self.reason = self.reason, None
        if reason is not None:
            raise reason

    async def wait(self, begin: Callable[[], Deferred[T]]) -> T:
        """Return the result of a wait; interrupted, cancel it or do not begin it, and raise the reason."""
        self.check()
        self._waiting = waiting = begin()
        try:
            if self.reason is not None:  # interrupted as it began
                waiting.cancel()
            return await waiting
        except CancelledError:
            self.check()
            raise
        finally:
            self._waiting = None


class SingleFlight(Generic[Key, Value]):
    """Runs the work of a key once at a time; callers that come while it runs share its outcome.

    The work goes on if a caller is cancelled.
    """

    def __init__(self) -> None:
        self._waiting: dict[Key, list[Deferred[Value]]] = {}

    async def get(self, key: Key, start: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        """Return the outcome of the work that runs for this key, or start it.

        :raises Exception: the work's exception, for every caller.
        """
        waiter: Deferred[Value] = Deferred(lambda cancelled: waiters.remove(cancelled))
        is_first = key not in self._waiting
        waiters = self._waiting.setdefault(key, [])
        waiters.append(waiter)
        if is_first:
            Deferred.fromCoroutine(start()).addBoth(self._finish, key)
        return await waiter

    def _finish(self, outcome: Value | Failure, key: Key) -> None:
        for waiter in tuple(self._waiting.pop(key)):
            if not waiter.called:  # another callback may have cancelled it
                waiter.callback(outcome)


class TTLCache(Generic[Key, Value]):
    """Keeps each entry for its number of seconds, and drops the oldest entry when there are too many.

    Expired entries are removed as others are added, the oldest first.  An entry from the future (the clock
    was set back) has expired.

    :param limit: the most entries.
    """

    def __init__(self, clock: IReactorTime, limit: int) -> None:
        self._clock = clock
        self._limit = limit
        self._entries: dict[Key, tuple[float, float, Value]] = {}

    def __bool__(self) -> bool:
        """Return whether there are entries, even if they have expired."""
        return bool(self._entries)

    def get(self, key: Key) -> Value | None:
        """Return the value, or None if there is none or it has expired."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        since, until, value = entry
        if since <= self._clock.seconds() < until:
            return value
        del self._entries[key]
        return None

    def put(self, key: Key, value: Value, seconds: float) -> None:
        """Set the value for the next seconds."""
        self.drop(key)
        now = self._clock.seconds()
        for oldest in tuple(islice(self._entries, 2)):
            if len(self._entries) >= self._limit or self._entries[oldest][1] <= now:
                self.drop(oldest)
        self._entries[key] = now, now + seconds, value

    def drop(self, key: Key) -> None:
        self._entries.pop(key, None)


class RunInThread(Protocol):
    """Runs a blocking call in a thread; tests run it at once."""

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]:
        """Return the call's result or raise its exception."""


def run_in_pool(reactor: IReactorFromThreads, pool: ThreadPool) -> RunInThread:
    """Run calls in this thread pool, which the caller starts and stops."""

    def in_thread(call: Callable[[], T], /) -> Awaitable[T]:
        deferred: Deferred[T] = deferToThreadPool(reactor, pool, call)
        return deferred

    return in_thread
