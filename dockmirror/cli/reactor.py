"""The reactor, for commands that ask over a network: it runs once, and for as long as they ask."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import react
from twisted.python.failure import Failure

T = TypeVar("T")


def run(work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """What comes of the work, which is given the reactor.

    :raises Abort: when it is interrupted, and was cancelled.
    """
    outcome: list[T | Failure] = []

    def begin(reactor: Any) -> Deferred[None]:
        working = Deferred.fromCoroutine(work(reactor))
        reactor.addSystemEventTrigger("before", "shutdown", working.cancel)
        return working.addBoth(outcome.append)

    try:
        react(begin)
    except SystemExit:
        if not outcome:
            raise click.Abort from None
    if isinstance(outcome[0], Failure):
        if outcome[0].check(CancelledError):
            raise click.Abort
        outcome[0].raiseException()
    return outcome[0]
