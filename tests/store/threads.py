"""Substitutes for threads and for other processes."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


async def inline(call: Callable[[], T], /) -> T:
    return call()


class CountedThread:
    """Counts the calls that a thread would run."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]:
        self.calls += 1
        return inline(call)


class HeldThreads:
    """Calls that run when the test says so."""

    def __init__(self) -> None:
        self._held: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]:
        done: Deferred[T] = Deferred()
        self._held.append((call, done))
        return done

    @property
    def held(self) -> int:
        """The number of waiting calls."""
        return len(self._held)

    def run(self) -> None:
        """Run the call that has waited longest."""
        call, done = self._held.pop(0)
        try:
            result = call()
        except Exception as error:
            done.errback(error)
        else:
            done.callback(result)

    def run_last(self) -> None:
        """Run the call that came last."""
        self._held.insert(0, self._held.pop())
        self.run()

    def fail(self, error: Exception) -> None:
        """Fail the call that has waited longest."""
        _, done = self._held.pop(0)
        done.errback(error)


@contextmanager
def before(call: object, meanwhile: Callable[[], object]) -> Iterator[None]:
    """Run something right before the first such call to the operating system."""

    def profile(frame: FrameType, event: str, called: object) -> None:
        if event == "c_call" and called is call:
            sys.setprofile(None)
            meanwhile()

    sys.setprofile(profile)
    yield
    sys.setprofile(None)
