"""Services around the reactor: daemon threads, clock steps, event loop lag, systemd, graceful shutdown."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event, Thread
from time import monotonic
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
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


CHECK_INTERVAL = 10.0
"""Seconds between two checks of the clock; each wakes the processor."""
_TOLERANCE = 1.0
"""Seconds by which the clock may be set back without any adjustment."""


class ClockStepGuard(Service):
    """Reschedules the reactor's timers when its clock has been set back.

    The reactor uses the time of day: if that is set back by an hour, each pause and deadline would last an
    hour longer.  A clock that is set forward ends them early, which a client's own retry makes up for.

    :param reactor: provides ``IReactorTime`` and ``IReactorFromThreads``; a thread checks its clock, since
        timers would be late themselves.
    :param steady: a monotonic clock.
    """

    def __init__(self, reactor: Any, steady: Callable[[], float] = monotonic) -> None:
        self._reactor = reactor
        self._steady = steady
        self._stopped = Event()
        self._ahead = 0.0

    def startService(self) -> None:
        super().startService()
        self._stopped.clear()
        self._ahead = self._reactor.seconds() - self._steady()
        # Workers are forked when the reactor starts, which another thread would prevent.
        self._reactor.callLater(0, self._start_thread)

    def _start_thread(self) -> None:
        if self.running:
            Thread(target=self._watch, name="clock", daemon=True).start()

    def stopService(self) -> None:
        super().stopService()
        self._stopped.set()

    def check(self) -> None:
        """Reschedule timers if the clock has been set back since the last check."""
        ahead = self._reactor.seconds() - self._steady()
        lost, self._ahead = self._ahead - ahead, ahead
        if lost > _TOLERANCE:
            self._reactor.callFromThread(self._reschedule, lost)

    def _watch(self) -> None:
        while not self._stopped.wait(CHECK_INTERVAL):
            self.check()

    def _reschedule(self, lost: float) -> None:
        """Move timers that were set before the step; those that are due earlier were set after it."""
        before = self._reactor.seconds() + lost
        for timer in self._reactor.getDelayedCalls():
            if timer.getTime() >= before - 2 * CHECK_INTERVAL:
                timer.reset(max(0.0, timer.getTime() - before))


LAG_INTERVAL = 2.0
"""Seconds between two measurements."""


class ReactorLagMonitor(Service):
    """Measures how late timers fire, which shows that something blocks the event loop.

    Timers are due at multiples of the interval from the start, as those of a ``LoopingCall`` are, so that
    both wake an idle process together.

    :param record: is called with the lag in seconds.
    """

    def __init__(self, clock: IReactorTime, record: Callable[[float], None]) -> None:
        self._clock = clock
        self._record = record
        self._timer: IDelayedCall | None = None

    def startService(self) -> None:
        super().startService()
        self._schedule(self._clock.seconds() + LAG_INTERVAL)

    def stopService(self) -> None:
        super().stopService()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, due: float) -> None:
        self._timer = self._clock.callLater(due - self._clock.seconds(), self._measure, due)

    def _measure(self, due: float) -> None:
        now = self._clock.seconds()
        self._record(max(0.0, now - due))
        self._schedule(now + LAG_INTERVAL - (now - due) % LAG_INTERVAL)


WhenServing = Callable[[Callable[[], None]], object]
"""Calls a function once clients are served."""


class SystemdNotice(Service):
    """Tells systemd when clients are served, which ``Type=notify`` waits for, and when the service stops.

    :param address: systemd's socket, from the variable ``NOTIFY_SOCKET`` (sd_notify(3)); empty without one.
    """

    def __init__(self, address: str, when_serving: WhenServing) -> None:
        self._address = address
        self._when_serving = when_serving

    def startService(self) -> None:
        super().startService()
        self._when_serving(lambda: self._send(b"READY=1"))

    def stopService(self) -> None:
        super().stopService()
        self._send(b"STOPPING=1")

    def _send(self, state: bytes) -> None:
        if not self._address:
            return
        is_abstract = self._address.startswith("@")  # unix(7) has a null byte there
        address = f"\0{self._address[1:]}" if is_abstract else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
            notices.sendto(state, address)


class GracefulShutdown(Service):
    """Stops the process at a signal, and calls other functions at the first signal and at a second one.

    Twisted itself answers a second signal with a traceback.

    :param on_first: called with the signal, before the reactor stops.
    :param on_second: called once; ends what the reactor waits for.
    """

    def __init__(
        self,
        reactor: Any,
        signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
        on_first: Callable[[signal.Signals], None] = lambda _: None,
        on_second: Callable[[], None] = lambda: None,
    ) -> None:
        self._reactor = reactor
        self._signals = signals
        self._on_first = on_first
        self._on_second = on_second
        self._received = 0
        self._stopping = False

    def startService(self) -> None:
        """Install the signal handlers once the reactor runs, since it installs its own at its start."""
        super().startService()
        self._reactor.callWhenRunning(self._install_handlers)

    def stop(self) -> None:
        """Stop the reactor, which lets running requests finish."""
        if not self._stopping:
            self._stopping = True
            # Twisted's handler may have taken a signal before this one's were installed.
            with suppress(ReactorNotRunning):
                self._reactor.stop()

    def _install_handlers(self) -> None:
        for each in self._signals:
            signal.signal(each, self._handle_signal)

    def _handle_signal(self, number: int, _: object) -> None:
        self._reactor.callFromThread(self._receive, signal.Signals(number))

    def _receive(self, received: signal.Signals) -> None:
        self._received += 1
        if self._received == 1:
            self._on_first(received)
            self.stop()
        elif self._received == 2:
            self._on_second()
