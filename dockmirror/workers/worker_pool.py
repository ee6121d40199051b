"""The worker processes: started, called, replaced when they die, and stopped together."""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, ProcessProtocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from ..system.posix import write_line
from .worker_program import ListeningSocket, StartWorker, WorkerProgram

RpcMethods = Mapping[str, Callable[[Any], Coroutine[Any, Any, Any]]]
"""The methods that may be called, by name; each takes and returns a JSON value."""
_log = Logger()


class PeerLost(Exception):
    """The other process is gone, and will not answer."""


class RpcError(Exception):
    """The method failed in the other process; the text is that of its exception."""


class RpcChannel(LineOnlyReceiver):
    """One end of a connection on which either end may call methods of the other.

    :param methods: the methods that the other end may call here.
    :param on_lost: called when the other end is gone.
    """

    delimiter = b"\n"
    MAX_LENGTH = 64 * 1024 * 1024

    def __init__(self, methods: RpcMethods, on_lost: Callable[[], None] = lambda: None) -> None:
        self._methods = methods
        self._on_lost = on_lost
        self._waiting: dict[int, Deferred[Any]] = {}
        self._last_id = 0
        self._is_lost = False

    async def call(self, method: str, value: object = None) -> Any:
        """Call a method of the other end, and return its answer.

        :raises RpcError: when the method raises an exception.
        :raises PeerLost: when the other end is gone, or goes before it answers.
        """
        if self._is_lost or self.transport is None:
            raise PeerLost
        self._last_id += 1
        call_id = self._last_id
        answer: Deferred[Any] = Deferred(lambda _: self._forget(call_id))
        self._waiting[call_id] = answer
        self._send({"call": method, "value": value, "id": call_id})
        return await answer

    def lineReceived(self, line: bytes) -> None:
        message = json.loads(line)
        if "call" in message:
            Deferred.fromCoroutine(self._answer(message)).addErrback(_log_failed_answer)
            return
        waiting = self._waiting.pop(message["id"], None)
        if waiting is None:
            return
        if "error" in message:
            waiting.errback(RpcError(message["error"]))
        else:
            waiting.callback(message["answer"])

    async def _answer(self, message: Mapping[str, Any]) -> None:
        try:
            outcome = {"answer": await self._methods[message["call"]](message["value"])}
        except Exception as error:
            outcome = {"error": str(error)}
        self._send({**outcome, "id": message["id"]})

    def _forget(self, call_id: int) -> None:
        self._waiting.pop(call_id, None)

    def _send(self, message: object) -> None:
        if not self._is_lost:
            self.sendLine(json.dumps(message).encode())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_lost = True
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            each.errback(PeerLost())
        self._on_lost()


def _log_failed_answer(failure: Failure) -> None:
    _log.failure("cannot answer another process", failure=failure)


TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGHUP)
"""Signals that a terminal sends to all processes; only the binding process acts on them."""
CALL_TIMEOUT = 5.0
"""Seconds that a worker has to answer a call, by default."""
ABORT_GRACE = 2.0
"""Seconds that a worker has to end after ``abort``."""
_SHORT_LIFE = 10.0
_RESTART_DELAYS = (0.0, 1.0, 5.0, 15.0, 30.0)
"""Seconds before a worker is replaced; longer after each one that lived for less than ``_SHORT_LIFE``."""
_FIRST_DESCRIPTOR = 10  # above those that every process has, and those that systemd passes


class WorkerPool(Service):
    """Starts worker processes, replaces those that die, and stops them together.

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
        for restart in self._restarts:
            if restart.active():
                restart.cancel()
        return DeferredList([worker.stop(self._grace) for worker in list(self.workers.values())])

    def abort(self) -> None:
        """End the grace period of the workers that are being stopped."""
        for worker in list(self.workers.values()):
            worker.abort()

    async def call(self, method: str, value: object = None, seconds: float = CALL_TIMEOUT) -> dict[int, Any]:
        """Call a method in all workers, and return the answers by the numbers of the workers.

        Workers that do not answer within *seconds* are left out.

        :raises RpcError: when the method raises an exception in any of them.
        """
        numbers = list(self.workers)
        calls = [self.workers[number].call(method, value, seconds) for number in numbers]
        outcomes = await DeferredList(calls, consumeErrors=True)
        answers = {}
        for number, (succeeded, outcome) in zip(numbers, outcomes, strict=True):
            if succeeded:
                answers[number] = outcome
            elif isinstance(outcome, Failure) and outcome.check(RpcError):
                outcome.raiseException()
        return answers

    def _start_all(self) -> None:
        for _ in range(self.count):
            self._start(self._program.first)

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
        started = Deferred.fromCoroutine(worker.channel.call("start", self._start_arguments()))
        started.addCallbacks(self._handle_start, self._handle_start_failure, errbackArgs=(worker,))

    def _handle_start(self, _: object) -> None:
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
        lived = self._reactor.seconds() - worker.started
        self._short_lives = self._short_lives + 1 if lived < _SHORT_LIFE else 0
        delay = _RESTART_DELAYS[min(self._short_lives, len(_RESTART_DELAYS) - 1)]
        _log.error(
            "a worker exited, {reason}; starting another one in {delay:g} s",
            reason=worker.exit_reason,
            delay=delay,
        )
        self._restarts = {restart for restart in self._restarts if restart.active()}
        self._restarts.add(self._reactor.callLater(delay, self._start, self._program.later))


class WorkerProcess(ProcessProtocol):
    """A worker as the binding process sees it.

    :ivar started: the reactor's time at which it was started.
    :ivar exit_reason: the signal or status with which it exited.
    """

    def __init__(self, reactor: Any, on_exit: Callable[[], None]) -> None:
        self.started = reactor.seconds()
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

    def call(self, method: str, value: object, seconds: float) -> Deferred[Any]:
        """Call a method in the worker; the Deferred fails if there is no answer in time."""
        return Deferred.fromCoroutine(self.channel.call(method, value)).addTimeout(seconds, self._reactor)

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
