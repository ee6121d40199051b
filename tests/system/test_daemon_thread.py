"""Calls in threads that nobody waits for."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Event
from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorFromThreads
from zope.interface import implementer

from dockmirror.system.reactor_services import run_in_daemon_thread
from tests.stacks import Outcome


@implementer(IReactorFromThreads)
class Reactor:
    """Makes the calls that threads ask for when it is told to."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], Any]] = SimpleQueue()

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        self._calls.put(lambda: callable(*args, **kwargs))

    def call(self) -> None:
        """The next one; waits for it."""
        self._calls.get(timeout=30)()


def test_what_comes_of_it() -> None:
    """The result or exception arrives in the reactor's thread."""
    reactor = Reactor()
    returned = Outcome(run_in_daemon_thread(reactor, lambda: 7))
    assert returned == []
    reactor.call()
    assert returned.get() == 7
    raised = Outcome(run_in_daemon_thread(reactor, lambda: int("x")))
    reactor.call()
    with pytest.raises(ValueError, match="x"):
        raised.get()


def test_nobody_waits() -> None:
    """A cancelled call reports nothing when it ends."""
    reactor, end = Reactor(), Event()
    work = run_in_daemon_thread(reactor, end.wait)
    outcome = Outcome(work)
    work.cancel()
    assert isinstance(outcome.error, CancelledError)
    end.set()
    reactor.call()
