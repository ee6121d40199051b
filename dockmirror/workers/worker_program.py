"""The start of a worker: its process, the listening sockets that it inherits, and the calls to it."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from attrs import frozen
from twisted.internet import default, unix
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IProcessProtocol
from twisted.internet.process import Process, reapProcessHandlers
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger, globalLogPublisher
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from ..system.posix import blocked_signals, is_output_discarded, remove_dead_socket

_SYSTEMD = re.compile(r"(^|:)systemd:.*")
WORKER_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
"""Signals that a worker starts with blocked, until it handles or ignores them."""
Descriptors = Mapping[int, int | str]
"""Descriptors by their numbers in a child; "r" is a pipe from which its parent reads."""
StartWorker = Callable[[IProcessProtocol, Sequence[str], Descriptors], None]
"""Starts a worker with arguments and descriptors, beside the standard ones or in their place.

It raises ``OSError`` when the process cannot be started; then nothing of it is left.
"""
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


@frozen
class ListeningSocket:
    """A socket that is listening already.

    :ivar descriptor: its file descriptor in the process that inherits it.
    :ivar family: the number of its address family.
    """

    descriptor: int
    family: int


class ReclaimingReactor:
    """A reactor that also listens on UNIX sockets which a killed process has left behind."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def listenUNIX(self, address: str, *args: Any, **kwargs: Any) -> IListeningPort:
        remove_dead_socket(Path(address))
        listening: IListeningPort = self._reactor.listenUNIX(address, *args, **kwargs)
        return listening

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class BindOnlyReactor(ReclaimingReactor):
    """A reactor for the binding process: its ports listen, but accept no connection."""

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self._ports: list[Any] = []

    @property
    def sockets(self) -> Sequence[ListeningSocket]:
        """The listening sockets, in the order in which they were opened."""
        return [ListeningSocket(port.fileno(), port.socket.family) for port in self._ports]

    def listenTCP(self, *args: Any, **kwargs: Any) -> IListeningPort:
        return self._stop_accepting(self._reactor.listenTCP(*args, **kwargs))

    def listenSSL(self, *args: Any, **kwargs: Any) -> IListeningPort:
        return self._stop_accepting(self._reactor.listenSSL(*args, **kwargs))

    def listenUNIX(self, *args: Any, **kwargs: Any) -> IListeningPort:
        return self._stop_accepting(super().listenUNIX(*args, **kwargs))

    def adoptStreamPort(self, *args: Any, **kwargs: Any) -> IListeningPort:
        return self._stop_accepting(self._reactor.adoptStreamPort(*args, **kwargs))

    def _stop_accepting(self, port: Any) -> IListeningPort:
        port.stopReading()
        # Workers accept from the same socket until they stop.  So it is only closed here, as Twisted does
        # with inherited sockets; a shutdown would end it for all of them.
        port._shouldShutdown = False
        self._ports.append(port)
        listening: IListeningPort = port
        return listening


class InheritedSocketsReactor:
    """A reactor for a worker: each call to listen takes the next of the inherited sockets."""

    def __init__(self, reactor: Any, sockets: Sequence[ListeningSocket]) -> None:
        self._reactor = reactor
        self._remaining = list(sockets)

    def listenTCP(self, port: int, factory: Any, *_: Any, **__: Any) -> IListeningPort:
        return self._adopt(factory)

    def listenUNIX(self, address: str, factory: Any, *_: Any, **__: Any) -> IListeningPort:
        return self._adopt(factory)

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, *_: Any, **__: Any) -> IListeningPort:
        return self._adopt(TLSMemoryBIOFactory(contextFactory, False, factory, self._reactor))

    def _adopt(self, factory: Any) -> IListeningPort:
        inherited = self._remaining.pop(0)
        try:
            if inherited.family == socket.AF_UNIX:
                port: Any = _InheritedUnixPort(inherited.descriptor, factory, self._reactor)
                port.startListening()
            else:
                family = socket.AddressFamily(inherited.family)
                port = self._reactor.adoptStreamPort(inherited.descriptor, family, factory)
        finally:
            os.close(inherited.descriptor)  # the port has its own copy
        listening: IListeningPort = port
        return listening

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class _InheritedUnixPort(unix.Port):
    """A UNIX socket whose file belongs to the binding process.

    Twisted's own class would change the mode of the file, and remove it when it stops.
    """

    def __init__(self, descriptor: int, factory: Any, reactor: Any) -> None:
        super().__init__(b"\0", factory, reactor=reactor)
        self._preexistingSocket = socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_STREAM)


def inherited_endpoint(endpoint: str) -> str:
    """Return the endpoint that a worker opens; systemd passes its sockets to the binding process only."""
    return _SYSTEMD.sub(r"\1tcp:0", endpoint)


@frozen
class WorkerProgram:
    """The program of a worker; see ``WorkerProcess.start`` for its arguments.

    :ivar first: starts the workers with which a mirror begins, ``later`` those that replace them.
    :ivar memory: the descriptor of the memory that all workers share.
    """

    first: StartWorker
    later: StartWorker
    memory: int


def pass_on_output(start: StartWorker) -> StartWorker:
    """Return a start of workers whose output this process reads if its own standard output is discarded."""

    def start_with_pipes(
        protocol: IProcessProtocol, arguments: Sequence[str], descriptors: Descriptors
    ) -> None:
        output = {1: "r", 2: "r"} if is_output_discarded() else {}
        start(protocol, arguments, {**descriptors, **output})

    return start_with_pipes


@frozen
class SpawnedWorkers:
    """Workers that are new interpreters.

    :ivar module: is run by ``python -m``.
    """

    module: str
    environ: Mapping[str, str]
    reactor: Any

    def start(self, protocol: IProcessProtocol, arguments: Sequence[str], descriptors: Descriptors) -> None:
        """See ``StartWorker``."""
        with blocked_signals(WORKER_SIGNALS):
            self.reactor.spawnProcess(
                protocol,
                sys.executable,
                [sys.executable, "-P", "-m", self.module, *arguments],
                env={**self.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                childFDs={0: 0, 1: 1, 2: 2, **descriptors},
            )


@frozen
class ForkedWorkers:
    """Workers that go on with what this process has imported, and share its memory.

    This is for the start of a process, while it has no open database: SQLite's connections must not be
    carried across a fork ("How To Corrupt An SQLite Database File", 2.6).  They are spawned if it has other
    threads, which may hold locks that nobody would release in the child (POSIX.1-2017, "fork").

    :ivar main: does in the child what ``spawned`` runs, but for the log, which it finds without observers.
    """

    main: Callable[[Sequence[str]], None]
    spawned: SpawnedWorkers

    def start(self, protocol: IProcessProtocol, arguments: Sequence[str], descriptors: Descriptors) -> None:
        """See ``StartWorker``."""
        if not _has_one_thread():
            self.spawned.start(protocol, arguments, descriptors)
            return
        _flush_output()  # or the child would print it again
        with blocked_signals(WORKER_SIGNALS):
            _ForkedProcess(self, arguments, protocol, {0: 0, 1: 1, 2: 2, **descriptors})


def _has_one_thread() -> bool:
    """Return whether no other thread runs, not even one of a library in another language."""
    try:
        return len(list(Path("/proc/self/task").iterdir())) == 1
    except OSError:
        return False


def _flush_output() -> None:
    for stream in filter(None, (sys.__stdout__, sys.__stderr__)):
        with suppress(OSError, ValueError):  # whoever read it has gone
            stream.flush()


class _ForkedProcess(Process):
    """A process that runs a function instead of a program, with a reactor of the default kind."""

    def __init__(
        self,
        workers: ForkedWorkers,
        arguments: Sequence[str],
        protocol: IProcessProtocol,
        descriptors: Descriptors,
    ) -> None:
        self._main = workers.main
        spawned = workers.spawned  # Twisted names its module if the child fails
        super().__init__(
            spawned.reactor, spawned.module, arguments, spawned.environ, None, protocol, childFDs=descriptors
        )

    def _trySpawnInsteadOfFork(self, *_: object) -> bool:
        return False

    def _resetSignalDisposition(self) -> None:
        """Go on to ignore what Python ignores, such as SIGPIPE: a new program would have it set anew."""

    def _execChild(
        self,
        path: None,
        uid: None,
        gid: None,
        name: str,
        arguments: Sequence[str],
        environ: Mapping[str, str],
    ) -> NoReturn:
        """Run the program in the child, which has its descriptors, and exit as an interpreter would."""
        status = 1
        try:
            _forget_parent(environ)
            self._main(arguments)
            for thread in threading.enumerate():
                if not (thread.daemon or thread is threading.current_thread()):
                    thread.join()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            _flush_output()
            os._exit(status)


def _forget_parent(environ: Mapping[str, str]) -> None:
    """Give this child what a new interpreter has in place of what belongs to its parent."""
    gc.freeze()
    gc.enable()
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    reapProcessHandlers.clear()
    for observer in tuple(globalLogPublisher._observers):
        globalLogPublisher.removeObserver(observer)
    logging.getLogger().handlers.clear()
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    sys.path[:] = filter(None, sys.path)  # which lacks the current directory, as with -P
    values = dict(environ)
    os.environ.clear()
    os.environ.update(values)
    del sys.modules["twisted.internet.reactor"]
    default.install()
