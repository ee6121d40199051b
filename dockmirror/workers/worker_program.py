"""The start of a worker: a fork of this process, or a new interpreter."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from attrs import frozen
from twisted.internet import default
from twisted.internet.interfaces import IProcessProtocol
from twisted.internet.process import Process, reapProcessHandlers
from twisted.logger import globalLogPublisher

from ..system.posix import blocked_signals, is_output_discarded

WORKER_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
"""Signals that a worker starts with blocked, until it handles or ignores them."""


Descriptors = Mapping[int, int | str]
"""Descriptors by their numbers in a child; "r" is a pipe from which its parent reads."""
StartWorker = Callable[[IProcessProtocol, Sequence[str], Descriptors], None]
"""Starts a worker with arguments and descriptors, beside the standard ones or in their place.

It raises ``OSError`` when the process cannot be started; then nothing of it is left.
"""


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
