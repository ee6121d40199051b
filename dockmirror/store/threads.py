"""Work in threads that whoever waits for it may leave."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")


class RunInThread(Protocol):
    """Runs a call that may block; in tests, at once."""

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]:
        """What the call returned, or its exception."""


def run_in_pool(reactor: IReactorFromThreads, pool: ThreadPool) -> RunInThread:
    """Runs calls in this pool, which somebody else starts and stops."""

    def in_thread(call: Callable[[], T], /) -> Awaitable[T]:
        deferred: Deferred[T] = deferToThreadPool(reactor, pool, call)
        return deferred

    return in_thread


def shield(work: Awaitable[T], late: Callable[[T], None]) -> Deferred[T]:
    """The work's outcome, for a waiter who may leave.

    A thread cannot be cancelled: cancelling this ends it at once, and ``late`` is given what comes of
    the work after that.
    """
    waiting: Deferred[T] = Deferred()

    def ended(outcome: T | Failure) -> None:
        if not waiting.called:
            waiting.callback(outcome)
        elif not isinstance(outcome, Failure):
            late(outcome)

    Deferred.fromCoroutine(_awaited(work)).addBoth(ended)
    return waiting


async def _awaited(work: Awaitable[T]) -> T:
    return await work
