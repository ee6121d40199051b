"""Clock steps, event loop lag, systemd, shutdown by signals, and calls in daemon threads."""

# mypy: allow-untyped-calls

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from zope.interface import implementer

from dockmirror.system.reactor_services import (
    LAG_INTERVAL,
    ClockStepGuard,
    GracefulShutdown,
    ReactorLagMonitor,
    SystemdNotice,
    run_in_daemon_thread,
)
from tests.stacks import Outcome

HOUR = 3600.0


class Machine(Clock):
    """A clock that can be set, and the seconds that have really passed."""

    def __init__(self) -> None:
        super().__init__()
        self.rightNow = 1_000_000.0
        self.passed = 0.0

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.passed += seconds
        self.advance(seconds)

    def callFromThread(self, work: Callable[..., Any], *arguments: Any) -> None:
        work(*arguments)


@pytest.fixture
def machine() -> Machine:
    """A machine that has run for a while."""
    machine = Machine()
    machine.run(100)
    return machine


@pytest.fixture
def guard(machine: Machine) -> ClockStepGuard:
    """A guard that has checked the clock once; its thread, which would check it again, has ended."""
    guard = ClockStepGuard(machine, lambda: machine.passed)
    guard.startService()
    machine.advance(0)
    guard.stopService()
    return guard


@pytest.mark.parametrize("back", [5.0, HOUR])
def test_a_clock_that_is_set_back_prolongs_nothing_by_more_than_a_second(
    machine: Machine, guard: ClockStepGuard, back: float
) -> None:
    fired = list[str]()
    machine.callLater(0.5, fired.append, "overdue")
    machine.callLater(10, fired.append, "deadline")
    machine.rightNow -= back
    machine.run(1)
    guard.check()
    for seconds, expected in ((0, 1), (8.9, 1), (0.2, 2)):
        machine.run(seconds)
        assert fired == ["overdue", "deadline"][:expected]


def test_a_timer_that_was_set_after_the_step_keeps_its_time(machine: Machine, guard: ClockStepGuard) -> None:
    fired = list[str]()
    machine.rightNow -= HOUR
    machine.callLater(60, fired.append, "since")
    machine.run(1)
    guard.check()
    machine.run(58)
    assert fired == []
    machine.run(2)
    assert fired == ["since"]


@pytest.mark.parametrize("by", [-0.5, 0.0, 5.0, HOUR])
def test_other_changes_of_the_clock_are_ignored(machine: Machine, guard: ClockStepGuard, by: float) -> None:
    """Corrections of less than a second, and a clock that goes forward."""
    machine.callLater(2 * HOUR, str)
    (before,) = (timer.getTime() for timer in machine.getDelayedCalls())
    machine.rightNow += by
    guard.check()
    assert [timer.getTime() for timer in machine.getDelayedCalls()] == [before]


def test_the_guard_ends_with_the_service_and_leaves_no_timer(machine: Machine, guard: ClockStepGuard) -> None:
    assert machine.getDelayedCalls() == []
    guard.startService()
    assert guard.running
    guard.stopService()
    assert not guard.running


def test_the_lag_is_measured_periodically_until_the_service_stops() -> None:
    clock, lags = Clock(), list[float]()
    monitor = ReactorLagMonitor(clock, lags.append)
    monitor.startService()
    for seconds in (
        LAG_INTERVAL,
        LAG_INTERVAL + 0.5,
        LAG_INTERVAL - 0.5,
        2.5 * LAG_INTERVAL,
        LAG_INTERVAL / 2,
    ):
        clock.advance(seconds)
    assert lags == [0, 0.5, 0, 1.5 * LAG_INTERVAL, 0]
    (timer,) = clock.getDelayedCalls()
    clock.rightNow -= HOUR
    timer.reset(LAG_INTERVAL)  # as ``ClockStepGuard`` does
    clock.pump([LAG_INTERVAL] * 2)
    assert lags[5:] == [0, 0]
    monitor.stopService()
    monitor.stopService()
    clock.advance(5 * LAG_INTERVAL)
    assert (len(lags), clock.getDelayedCalls()) == (7, [])


class SignalledReactor:
    """A reactor that counts how often it is stopped."""

    def __init__(self) -> None:
        self.running: list[Callable[[], None]] = []
        self.calls: list[Callable[[], None]] = []
        self.callWhenRunning = self.running.append
        self.stopped = 0

    def callFromThread(self, call: Callable[..., None], *arguments: Any) -> None:
        self.calls.append(partial(call, *arguments))

    def stop(self) -> None:
        self.stopped += 1


class StoppedReactor(SignalledReactor):
    """A reactor that stops already."""

    def stop(self) -> None:
        raise ReactorNotRunning("Can't stop reactor that isn't running.")


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_the_reactor_is_stopped_once_by_any_number_of_signals(first: signal.Signals) -> None:
    """The first and the second signal are reported, and no other."""
    reactor, reported = SignalledReactor(), list[object]()
    shutdown = GracefulShutdown(
        reactor, on_first=reported.append, on_second=partial(reported.append, "second")
    )
    shutdown.startService()
    for call in reactor.running:
        call()
    for each in (first, signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), each)
    assert reactor.stopped == 0
    for call in reactor.calls:
        call()
    assert (reactor.stopped, len(reactor.calls)) == (1, 3)
    assert reported == [first, "second"]


def test_a_signal_after_one_that_twisted_has_answered_itself_raises_nothing() -> None:
    """Twisted's handlers are in force at the start of the reactor, until these are installed."""
    reactor, reported = StoppedReactor(), list[object]()
    shutdown = GracefulShutdown(reactor, on_first=reported.append)
    shutdown.startService()
    for call in reactor.running:
        call()
    os.kill(os.getpid(), signal.SIGINT)
    for call in reactor.calls:
        call()
    assert reported == [signal.SIGINT]


@implementer(IReactorFromThreads)
class ThreadedReactor:
    """A reactor that makes a call of a thread when it is told to."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], Any]] = SimpleQueue()

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        self._calls.put(lambda: callable(*args, **kwargs))

    def call(self) -> None:
        """Make the next call; wait for it."""
        self._calls.get(timeout=30)()


def test_the_outcome_of_a_call_in_a_thread_arrives_in_the_reactors_thread() -> None:
    reactor = ThreadedReactor()
    returned = Outcome(run_in_daemon_thread(reactor, lambda: 7))
    assert returned == []
    reactor.call()
    assert returned.get() == 7
    raised = Outcome(run_in_daemon_thread(reactor, lambda: int("x")))
    reactor.call()
    with pytest.raises(ValueError, match="x"):
        raised.get()


def test_a_cancelled_call_in_a_thread_reports_nothing_when_it_ends() -> None:
    reactor, end = ThreadedReactor(), Event()
    work = run_in_daemon_thread(reactor, end.wait)
    outcome = Outcome(work)
    work.cancel()
    assert isinstance(outcome.error, CancelledError)
    end.set()
    reactor.call()


@pytest.mark.parametrize("kind", ["file", "abstract"])
def test_systemd_is_told_when_clients_are_served_and_when_the_service_stops(
    tmp_path: Path, kind: str
) -> None:
    name = f"{os.getpid()}/systemd" if kind == "abstract" else str(tmp_path / "systemd")
    calls: list[Callable[[], None]] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}" if kind == "abstract" else name)
        systemd.setblocking(False)
        notice = SystemdNotice(f"@{name}" if kind == "abstract" else name, calls.append)
        notice.startService()
        with pytest.raises(BlockingIOError):
            systemd.recv(100)
        calls[0]()
        assert systemd.recv(100) == b"READY=1"
        notice.stopService()
        assert systemd.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["", "/nowhere/systemd"])
def test_a_mirror_without_systemd_tells_nobody(address: str) -> None:
    notice = SystemdNotice(address, lambda call: call())
    notice.startService()
    notice.stopService()
    assert not notice.running
