"""Run the reactor once, for commands that use the network."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import react
from twisted.python.failure import Failure

T = TypeVar("T")


def run(coroutine: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """Run the coroutine with the reactor, and return its result.

    :raises Abort: when the user interrupted it; the coroutine was cancelled then.
    """
    outcome: list[T | Failure] = []

    def start(reactor: Any) -> Deferred[None]:
        result = Deferred.fromCoroutine(coroutine(reactor))
        reactor.addSystemEventTrigger("before", "shutdown", result.cancel)
        return result.addBoth(outcome.append)

    try:
        react(start)
    except SystemExit:
        if not outcome:
            raise click.Abort from None
    if isinstance(outcome[0], Failure):
        if outcome[0].check(CancelledError):
            raise click.Abort
        outcome[0].raiseException()
    return outcome[0]
