"""The worker processes: started, called, replaced when they die, and stopped together."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..system.posix import write_line
from .worker_program import ListeningSocket, PeerLost, RpcChannel, RpcError, StartWorker, WorkerProgram

_log = Logger()

TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGHUP)
"""Signals that a terminal sends to all processes; only the binding process acts on them."""
CALL_TIMEOUT = 2.5
"""Seconds that a worker has to answer a call; a probe of the readiness waits for 5."""
CHECK_INTERVAL = 10.0
"""Seconds from one check that workers answer to the next."""
_MOST_MISSED, _MOST_MISSED_AT_START = 6, 30
ABORT_GRACE = 2.0
"""Seconds that a worker has to end after ``abort``."""
_SHORT_LIFE = 10.0
_RESTART_DELAYS = (0.0, 1.0, 5.0, 15.0, 30.0)
"""Seconds before a worker is replaced; longer after each one that never served or lived shortly."""
_FIRST_DESCRIPTOR = 10  # above those that every process has, and those that systemd passes


def is_hung(missed: int, is_serving: bool) -> bool:
    """Return whether a worker has not answered for longer than a machine can be slow.

    Checks are counted, not seconds: a process that was stopped together with its workers, or whose clock was
    set forward, misses none.

    :param missed: the number of checks since its last answer.
    :param is_serving: False while it imports and opens the cache.
    """
    return missed >= (_MOST_MISSED if is_serving else _MOST_MISSED_AT_START)


class WorkerPool(Service):
    """Starts worker processes, replaces those that die or hang, and stops them together.

    :param program: takes the arguments that ``WorkerProcess.start`` gives it.
    :param sockets: returns the listening sockets, once they listen.
    :param start_arguments: returns the value for the method ``start``, the first that is called in a worker.
    :param grace: seconds after SIGTERM until a worker is killed.
    :ivar count: the number of workers to run.
    :ivar is_stopping: the workers are being stopped, and none is replaced.
    :ivar on_exit: called with the number of each worker that has exited.
    """

    def __init__(
        self,
        count: int,
        program: WorkerProgram,
        sockets: Callable[[], Sequence[ListeningSocket]],
        start_arguments: Callable[[], Any],
        grace: float,
        reactor: Any,
    ) -> None:
        self.workers: dict[int, WorkerProcess] = {}
        self.is_stopping = False
        self.count = count
        self.on_exit: Callable[[int], None] = lambda _: None
        self._program = program
        self._sockets = sockets
        self._start_arguments = start_arguments
        self._grace = grace
        self._reactor = reactor
        self._short_lives = 0
        self._restarts: set[IDelayedCall] = set()
        self._last_number = 0
        self._serving: Deferred[Any] = Deferred()
        self._checks = LoopingCall(self._check)
        self._checks.clock = reactor

    def when_serving(self, call: Callable[[], None]) -> None:
        """Call a function once the first worker serves."""
        self._serving.addCallback(lambda _: call()).addErrback(
            lambda failure: _log.failure("cannot go on after the start", failure=failure)
        )

    def startService(self) -> None:
        super().startService()
        # twistd has given up the rights of root by the time the reactor runs.
        self._reactor.callWhenRunning(self._start_all)

    def stopService(self) -> Deferred[Any]:
        """Return a Deferred that fires when all workers have exited."""
        super().stopService()
        self.is_stopping = True
        if self._checks.running:
            self._checks.stop()
        for restart in self._restarts:
            if restart.active():
                restart.cancel()
        return DeferredList([worker.stop(self._grace) for worker in list(self.workers.values())])

    def abort(self) -> None:
        """End the grace period of the workers that are being stopped."""
        for worker in list(self.workers.values()):
            worker.abort()

    async def call(self, method: str) -> dict[int, Any]:
        """Call a method in the workers that serve, and return the answers by the numbers of the workers.

        Workers that do not answer in time, or exit meanwhile, are left out; one that does not answer at all
        is not waited for again until it does.

        :raises RpcError: when the method raises an exception in any of them.
        """
        now = self._reactor.seconds()
        serving = {number: worker for number, worker in self.workers.items() if worker.is_serving}
        answering = {number: worker for number, worker in serving.items() if worker.answers(now)}
        called = {number: worker.call(method) for number, worker in (answering or serving).items()}
        answers = await _collect(called)
        return {number: answer for number, answer in answers.items() if number in self.workers}

    async def call_all(self, method: str, value: object) -> None:
        """Call a method in all workers, and wait until each has answered or is gone.

        A worker that still starts answers when it has started.

        :raises RpcError: as ``call`` does.
        """
        workers = self.workers.items()
        await _collect(
            {number: Deferred.fromCoroutine(worker.channel.call(method, value)) for number, worker in workers}
        )

    def _start_all(self) -> None:
        for _ in range(self.count):
            self._start(self._program.first)
        self._checks.start(CHECK_INTERVAL, now=False)

    def _check(self) -> None:
        """Stop the workers that hang, so that others replace them."""
        for worker in self.workers.values():
            if worker.silent_since is None:
                worker.ping()
                continue
            worker.missed += 1
            if is_hung(worker.missed, worker.is_serving) and not worker.is_stopping:
                _log.error(
                    "the worker with process ID {pid} has not answered for {seconds:g} s, and is killed",
                    pid=worker.pid, seconds=worker.missed * CHECK_INTERVAL,
                )  # fmt: skip
                worker.stop(ABORT_GRACE)

    def _start(self, start: StartWorker) -> None:
        self._last_number += 1
        number = self._last_number
        worker = WorkerProcess(self._reactor, lambda: self._handle_exit(number))
        self.workers[number] = worker
        try:
            worker.start(start, self._program.memory, self._sockets())
        except OSError as error:  # out of memory or descriptors, maybe for a moment only
            worker.exit_reason = f"before it started: {error.strerror}"
            self._handle_exit(number)
            return
        started = worker.ask("start", self._start_arguments())
        started.addCallbacks(
            self._handle_start, self._handle_start_failure, callbackArgs=(worker,), errbackArgs=(worker,)
        )

    def _handle_start(self, _: object, worker: WorkerProcess) -> None:
        worker.is_serving = True
        if not self._serving.called:
            self._serving.callback(None)

    def _handle_start_failure(self, failure: Failure, worker: WorkerProcess) -> None:
        """Stop a worker that cannot serve, so that another one replaces it."""
        if not failure.check(PeerLost):
            _log.error("a worker cannot start: {error}", error=failure.getErrorMessage())
            worker.stop(self._grace)

    def _handle_exit(self, number: int) -> None:
        worker = self.workers.pop(number)
        self.on_exit(number)
        if self.is_stopping:
            return
        is_short = not worker.is_serving or self._reactor.seconds() - worker.started < _SHORT_LIFE
        self._short_lives = self._short_lives + 1 if is_short else 0
        delay = _RESTART_DELAYS[min(self._short_lives, len(_RESTART_DELAYS) - 1)]
        _log.error(
            "a worker exited, {reason}; starting another one in {delay:g} s",
            reason=worker.exit_reason,
            delay=delay,
        )
        self._restarts = {restart for restart in self._restarts if restart.active()}
        self._restarts.add(self._reactor.callLater(delay, self._start, self._program.later))


async def _collect(calls: Mapping[int, Deferred[Any]]) -> dict[int, Any]:
    """Return the answers; calls that fail are left out, unless the method has failed."""
    answers = {}
    outcomes = await DeferredList(list(calls.values()), consumeErrors=True)
    for number, (succeeded, outcome) in zip(calls, outcomes, strict=True):
        if succeeded:
            answers[number] = outcome
        elif isinstance(outcome, Failure) and outcome.check(RpcError):
            outcome.raiseException()
    return answers


class WorkerProcess(ProcessProtocol):
    """A worker as the binding process sees it.

    :ivar started: the reactor's time at which it was started.
    :ivar is_serving: it has answered ``start``.
    :ivar silent_since: the reactor's time at which ``start`` or ``ping`` was called, until the answer.
    :ivar missed: the number of checks since its last answer.
    :ivar exit_reason: the signal or status with which it exited.
    """

    def __init__(self, reactor: Any, on_exit: Callable[[], None]) -> None:
        self.started = reactor.seconds()
        self.is_serving = False
        self.silent_since: float | None = None
        self.missed = 0
        self.exit_reason = ""
        self.channel = RpcChannel({})
        self._reactor = reactor
        self._on_exit = on_exit
        self._stopped: list[Deferred[None]] = []
        self._kill: IDelayedCall | None = None
        self._output: dict[int, bytes] = {}

    def start(self, start: StartWorker, memory: int, sockets: Sequence[ListeningSocket]) -> None:
        """Start the process.

        Its arguments are the descriptors of the RPC channel and of the shared memory, and
        ``DESCRIPTOR:FAMILY`` for each listening socket.

        :raises OSError: when the process cannot be started; then nothing of it is left.
        """
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._reactor.adoptStreamConnection(
                ours.fileno(), socket.AF_UNIX, _ExistingSocketFactory(self.channel)
            )
            descriptors = [theirs.fileno(), memory, *(each.descriptor for each in sockets)]
            inherited = dict(enumerate(descriptors, _FIRST_DESCRIPTOR))
            channel, shared, *listening = inherited
            arguments = [
                f"{descriptor}:{int(each.family)}"
                for descriptor, each in zip(listening, sockets, strict=True)
            ]
            start(self, [str(channel), str(shared), *arguments], inherited)

    @property
    def pid(self) -> int:
        """The ID of the process."""
        assert self.transport is not None
        return int(self.transport.pid)

    @property
    def is_stopping(self) -> bool:
        """True once ``stop`` was called."""
        return self._kill is not None

    def answers(self, now: float) -> bool:
        """Return False if the worker does not even answer ``ping`` in time."""
        return self.silent_since is None or now - self.silent_since < CALL_TIMEOUT

    def call(self, method: str) -> Deferred[Any]:
        """Call a method in the worker; the Deferred fails if there is no answer in time."""
        if self.silent_since is None:
            self.ping()
        return Deferred.fromCoroutine(self.channel.call(method)).addTimeout(CALL_TIMEOUT, self._reactor)

    def ping(self) -> None:
        """Find out if the worker answers at all: it may take its time for what other methods do."""
        self.ask("ping").addErrback(lambda _: None)

    def ask(self, method: str, value: object = None) -> Deferred[Any]:
        """Call a method, and let ``silent_since`` and ``missed`` tell that the answer is awaited."""
        self.silent_since = self._reactor.seconds()
        return Deferred.fromCoroutine(self.channel.call(method, value)).addBoth(self._handle_answer)

    def _handle_answer(self, answer: Any) -> Any:
        self.silent_since, self.missed = None, 0
        return answer

    def stop(self, grace: float) -> Deferred[None]:
        """Terminate the worker, and kill it after the grace period; fires when it has exited."""
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        self._signal("TERM")
        if self._kill is None:
            self._kill = self._reactor.callLater(grace, self._signal, "KILL")
        return stopped

    def abort(self) -> None:
        """Call the worker's method ``abort``, and kill the worker soon if it does not exit."""
        Deferred.fromCoroutine(self.channel.call("abort")).addErrback(lambda _: None)
        if self._kill is not None and self._kill.active():
            self._kill.reset(ABORT_GRACE)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Print what the worker prints, in whole lines: others print as well."""
        *lines, self._output[childFD] = (self._output.get(childFD, b"") + data).split(b"\n")
        for line in lines:
            write_line(sys.stdout, line.decode(errors="replace"))

    def processExited(self, reason: Failure) -> None:
        status = reason.value
        number, code = getattr(status, "signal", None), getattr(status, "exitCode", None)
        self.exit_reason = f"killed by signal {number}" if number is not None else f"with status {code}"
        if self._kill is not None and self._kill.active():
            self._kill.cancel()
        self._on_exit()
        for stopped in self._stopped:
            stopped.callback(None)

    def _signal(self, name: str) -> None:
        if self.transport is not None:
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess(name)


class _ExistingSocketFactory(Factory):
    """Returns one protocol, for a connection that exists already."""

    def __init__(self, channel: RpcChannel) -> None:
        self._channel = channel

    def buildProtocol(self, addr: object) -> RpcChannel:
        return self._channel
