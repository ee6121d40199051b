"""Run blocking calls in threads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")


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
