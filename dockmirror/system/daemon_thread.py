"""Run blocking calls in daemon threads, which do not delay the end of the process."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

T = TypeVar("T")


def run_in_daemon_thread(reactor: IReactorFromThreads, call: Callable[[], T]) -> Deferred[T]:
    """Return the result of a call; cancelling stops the wait but not the call."""
    result: Deferred[T] = Deferred()

    def run() -> None:
        outcome: T | Failure
        try:
            outcome = call()
        except Exception:
            outcome = Failure()
        reactor.callFromThread(result.callback, outcome)

    Thread(target=run, daemon=True).start()
    return result
