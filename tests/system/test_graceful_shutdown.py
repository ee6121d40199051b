"""The end of the mirror."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from dockmirror.system.graceful_shutdown import GracefulShutdown


class Reactor:
    """Counts how often it is stopped."""

    def __init__(self) -> None:
        self.running: list[Callable[[], None]] = []
        self.calls: list[Callable[[], None]] = []
        self.stopped = 0

    def callWhenRunning(self, call: Callable[[], None]) -> None:
        """See ``IReactorCore``."""
        self.running.append(call)

    def callFromThread(self, call: Callable[[], None]) -> None:
        """See ``IReactorFromThreads``."""
        self.calls.append(call)

    def stop(self) -> None:
        """See ``IReactorCore``."""
        self.stopped += 1


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_it_is_asked_for_once(first: signal.Signals) -> None:
    """In the reactor's own time; whatever comes after the first signal changes nothing."""
    reactor = Reactor()
    GracefulShutdown(reactor).startService()
    for call in reactor.running:
        call()
    for each in (first, signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), each)
    assert reactor.stopped == 0
    for call in reactor.calls:
        call()
    assert reactor.stopped == 1
    assert len(reactor.calls) == 3
