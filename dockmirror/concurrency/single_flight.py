"""One piece of work for everyone who asks for it meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

Key = TypeVar("Key")
Value = TypeVar("Value")


class SingleFlight(Generic[Key, Value]):
    """Work under a key runs once; whoever asks while it runs is given its outcome.

    A waiter who leaves (whose Deferred is cancelled) takes nobody with it: the work goes on.
    """

    def __init__(self) -> None:
        self._waiting: dict[Key, list[Deferred[Value]]] = {}

    async def get(self, key: Key, start: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        """The outcome of the work that runs under this key, started now if none does.

        :raises Exception: what the work raised, to every waiter.
        """
        waiter: Deferred[Value] = Deferred(lambda gone: waiters.remove(gone))
        first = key not in self._waiting
        waiters = self._waiting.setdefault(key, [])
        waiters.append(waiter)
        if first:
            Deferred.fromCoroutine(start()).addBoth(self._done, key)
        return await waiter

    def _done(self, outcome: Value | Failure, key: Key) -> None:
        for waiter in tuple(self._waiting.pop(key)):
            if not waiter.called:  # another's outcome may have made it leave
                waiter.callback(outcome)
