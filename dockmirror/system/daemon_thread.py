"""Calls that may block for long, in threads for which the end of the process does not wait."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

T = TypeVar("T")


def run_in_daemon_thread(reactor: IReactorFromThreads, call: Callable[[], T]) -> Deferred[T]:
    """What the call returns, or its exception; cancelling it ends the waiting alone."""
    waiting: Deferred[T] = Deferred()

    def run() -> None:
        outcome: T | Failure
        try:
            outcome = call()
        except Exception:
            outcome = Failure()
        reactor.callFromThread(waiting.callback, outcome)

    Thread(target=run, daemon=True).start()
    return waiting
