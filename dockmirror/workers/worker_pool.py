"""Processes that serve as one: started, replaced when they die, ended together."""

from __future__ import annotations

import os
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
from twisted.logger import Logger
from twisted.python.failure import Failure

from .rpc_channel import PeerLost, RpcChannel, RpcError
from .sockets import ListeningSocket

PATIENCE = 5.0
"""Seconds that a worker has to answer what it is asked, by default."""
_SHORT = 10.0
_PAUSES = (0.0, 1.0, 5.0, 15.0, 30.0)
"""Seconds before a worker is replaced, longer each time that one did not live for ``_SHORT`` seconds."""
_FIRST = 10  # of the descriptors in a worker, behind those that every process has and systemd gives

_log = Logger()


class WorkerPool(Service):
    """So many workers.

    :param module: what a worker runs, by ``python -P -m``; its arguments are the descriptor of its end of the
        line to this process, that of the memory, and ``DESCRIPTOR:FAMILY`` for each socket.
    :param memory: the descriptor of memory that all of them share.
    :param sockets: gives the sockets that listen, once they do.
    :param begin: what a worker is first asked, by which it begins: a name and a value, as they are then.
    :param grace: seconds after SIGTERM until a worker is killed.
    :param environ: the environment of a worker.
    :ivar count: how many there are to be.
    :ivar ending: whether the workers are to end, and none is replaced.
    :ivar departed: is told of a worker that is gone, by its number.
    """

    def __init__(
        self,
        count: int,
        module: str,
        memory: int,
        sockets: Callable[[], Sequence[ListeningSocket]],
        begin: Callable[[], tuple[str, Any]],
        grace: float,
        environ: Mapping[str, str],
        reactor: Any,
    ) -> None:
        self.workers: dict[int, WorkerProcess] = {}
        self.ending = False
        self.count = count
        self._module = module
        self._memory = memory
        self._sockets = sockets
        self._begin = begin
        self._grace = grace
        self._environ = environ
        self._reactor = reactor
        self.departed: Callable[[int], None] = lambda _: None
        self._short_lives = 0
        self._pauses: set[IDelayedCall] = set()
        self._number = 0

    def startService(self) -> None:
        """Called when the reactor is about to run, and no privilege is left that a worker must not have."""
        super().startService()
        self._reactor.callWhenRunning(self._start_all)

    def stopService(self) -> Deferred[Any]:
        """Fires when no worker is left."""
        super().stopService()
        self.ending = True
        for pause in self._pauses:
            if pause.active():
                pause.cancel()
        return DeferredList([worker.end(self._grace) for worker in list(self.workers.values())])

    async def ask(self, name: str, value: object = None, patience: float = PATIENCE) -> dict[int, Any]:
        """What the workers answer, by their numbers; who gives none in time is left out.

        :param patience: seconds for which an answer is waited for.
        :raises Refused: when one of them could not do it.
        """
        numbers = list(self.workers)
        asked = [self.workers[number].ask(name, value, patience) for number in numbers]
        outcomes = await DeferredList(asked, consumeErrors=True)
        answers = {}
        for number, (succeeded, outcome) in zip(numbers, outcomes, strict=True):
            if succeeded:
                answers[number] = outcome
            elif isinstance(outcome, Failure) and outcome.check(RpcError):
                outcome.raiseException()
        return answers

    def _start_all(self) -> None:
        for _ in range(self.count):
            self._start()

    def _start(self) -> None:
        self._number += 1
        number = self._number
        worker = WorkerProcess(self._environ, self._reactor, lambda: self._ended(number))
        self.workers[number] = worker
        try:
            worker.start(self._module, self._memory, self._sockets())
        except OSError as error:  # for want of memory or of descriptors, which there may be in a while
            worker.how = f"before it began: {error.strerror}"
            self._ended(number)
            return
        beginning = Deferred.fromCoroutine(worker.line.ask(*self._begin()))
        beginning.addErrback(self._did_not_begin, worker)

    def _did_not_begin(self, failure: Failure, worker: WorkerProcess) -> None:
        """It serves nobody: another one takes its place."""
        if not failure.check(PeerLost):
            _log.error("a worker could not begin: {error}", error=failure.getErrorMessage())
            worker.end(self._grace)

    def _ended(self, number: int) -> None:
        worker = self.workers.pop(number)
        self.departed(number)
        if self.ending:
            return
        lived = self._reactor.seconds() - worker.began
        self._short_lives = self._short_lives + 1 if lived < _SHORT else 0
        pause = _PAUSES[min(self._short_lives, len(_PAUSES) - 1)]
        _log.error("a worker ended, {how}: another one in {pause:g} s", how=worker.how, pause=pause)
        self._pauses = {call for call in self._pauses if call.active()}
        self._pauses.add(self._reactor.callLater(pause, self._start))


class WorkerProcess(ProcessProtocol):
    """One process.

    :ivar began: when it was started, in the reactor's seconds.
    :ivar how: in which way it ended.
    """

    def __init__(self, environ: Mapping[str, str], reactor: Any, ended: Callable[[], None]) -> None:
        self._environ = environ
        self.began = reactor.seconds()
        self.how = "not yet"
        self.line = RpcChannel({})
        self._reactor = reactor
        self._ended = ended
        self._over: list[Deferred[None]] = []
        self._kill: IDelayedCall | None = None

    def start(self, module: str, memory: int, sockets: Sequence[ListeningSocket]) -> None:
        """Runs the module, with a line, the memory and these sockets.

        :raises OSError: when it cannot be started; then nothing of it is left.
        """
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._reactor.adoptStreamConnection(
                ours.fileno(), socket.AF_UNIX, _ExistingSocketFactory(self.line)
            )
            descriptors = [theirs.fileno(), memory, *(each.descriptor for each in sockets)]
            inherited = dict(enumerate(descriptors, _FIRST))
            listening = [f"{_FIRST + 2 + place}:{int(each.family)}" for place, each in enumerate(sockets)]
            self._reactor.spawnProcess(
                self,
                sys.executable,
                [sys.executable, "-P", "-m", module, str(_FIRST), str(_FIRST + 1), *listening],
                env={**self._environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                childFDs={0: 0, 1: 1, 2: 2, **inherited},
            )

    def ask(self, name: str, value: object, patience: float) -> Deferred[Any]:
        """Fires with its answer; fails where there is none in time."""
        return Deferred.fromCoroutine(self.line.ask(name, value)).addTimeout(patience, self._reactor)

    def end(self, grace: float) -> Deferred[None]:
        """Has it end; fires when it has."""
        over: Deferred[None] = Deferred()
        self._over.append(over)
        self._signal("TERM")
        if self._kill is None:
            self._kill = self._reactor.callLater(grace, self._signal, "KILL")
        return over

    def processEnded(self, reason: Failure) -> None:
        """See ``IProcessProtocol``."""
        status = reason.value
        signal, code = getattr(status, "signal", None), getattr(status, "exitCode", None)
        self.how = f"killed by signal {signal}" if signal is not None else f"with status {code}"
        if self._kill is not None and self._kill.active():
            self._kill.cancel()
        self._ended()
        for over in self._over:
            over.callback(None)

    def _signal(self, name: str) -> None:
        if self.transport is not None:
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess(name)


class _ExistingSocketFactory(Factory):
    """For a connection that there is already."""

    def __init__(self, line: RpcChannel) -> None:
        self._line = line

    def buildProtocol(self, addr: object) -> RpcChannel:
        return self._line
