"""A worker process, which serves on the sockets of the binding process."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from typing import Any

from attrs import asdict
from twisted.internet.protocol import Factory
from twisted.logger import globalLogBeginner, globalLogPublisher

from ..config.load import unpack
from ..status import WorkerState
from ..system.reactor_services import GracefulShutdown
from ..web.readiness import ReadinessState
from ..web.shared_tables import SharedTables
from ..workers.worker_pool import TERMINAL_SIGNALS
from ..workers.worker_program import (
    WORKER_SIGNALS,
    InheritedSocketsReactor,
    ListeningSocket,
    RpcChannel,
    RpcMethods,
    inherited_endpoint,
)
from .endpoints import listen_endpoints
from .listeners import make_listeners
from .message_log import MessageLog, make_message_log
from .process import ServingProcess


class Worker:
    """A worker, which starts to serve when the binding process sends it the settings.

    :param memory: memory that all workers share.
    :param sockets: the listening sockets, one for each endpoint.
    :param log: takes the form of its lines from the settings.
    """

    def __init__(
        self, memory: SharedTables, sockets: Sequence[ListeningSocket], log: MessageLog, reactor: Any
    ) -> None:
        self._memory = memory
        self._log = log
        self._sockets = sockets
        self._reactor = reactor
        self._process: ServingProcess | None = None

    def methods(self) -> RpcMethods:
        """Return the methods that the binding process may call."""
        return {
            "start": self._start, "ping": self._ping, "apply": self._apply, "metrics": self._metrics,
            "readiness": self._readiness, "state": self._state,
            "transfers": self._transfers, "abort": self._abort,
        }  # fmt: skip

    async def _start(self, arguments: dict[str, Any]) -> None:
        settings = unpack(arguments)
        self._log.form = settings.log_format
        process = ServingProcess(
            settings, dict(os.environ), self._reactor, self._memory, arguments["processes"]
        )
        reactor = InheritedSocketsReactor(self._reactor, self._sockets)
        endpoints = map(inherited_endpoint, listen_endpoints(settings))
        for listener in make_listeners(endpoints, process.site, process.certificates, reactor):
            listener.setServiceParent(process.service)
        process.service.privilegedStartService()
        process.service.startService()
        self._reactor.addSystemEventTrigger("before", "shutdown", process.service.stopService)
        self._process = process

    async def _ping(self, _: object) -> None:
        """Answer that this process runs."""

    async def _apply(self, packed: dict[str, Any]) -> None:
        if self._process is not None:
            new = unpack(packed)
            await self._process.apply(new)
            self._log.form = new.log_format

    async def _metrics(self, _: object) -> str:
        return (await self._process.telemetry.metrics()).decode() if self._process else ""

    async def _readiness(self, _: object) -> dict[str, Any]:
        if self._process is None:
            return asdict(ReadinessState(False, "not listening", "none"))
        return asdict(await self._process.telemetry.state())

    async def _state(self, _: object) -> dict[str, Any]:
        if self._process is None:
            return WorkerState(processes=0).as_json()
        return (await self._process.telemetry.worker_state()).as_json()

    async def _transfers(self, _: object) -> int:
        return self._process.site.connections.running_requests if self._process else 0

    async def _abort(self, _: object) -> None:
        if self._process is not None:
            self._process.site.connections.abort()


def main(arguments: Sequence[str]) -> None:
    """Run the worker of a new interpreter; see ``main_of_fork``."""
    log = make_message_log()
    globalLogBeginner.beginLoggingTo([log], redirectStandardIO=False)
    _run(arguments, log)


def main_of_fork(arguments: Sequence[str]) -> None:
    """Run until SIGTERM, or until the binding process is gone.

    :param arguments: see ``WorkerProcess.start``.
    """
    log = make_message_log()
    globalLogPublisher.addObserver(log)
    _run(arguments, log)


def _run(arguments: Sequence[str], log: MessageLog) -> None:
    from twisted.internet import reactor

    running: Any = reactor
    # Only the binding process acts on these.
    for ignored in TERMINAL_SIGNALS:
        signal.signal(ignored, signal.SIG_IGN)
    channel_descriptor, memory, *sockets = arguments
    listening = [ListeningSocket(*map(int, each.split(":"))) for each in sockets]
    worker = Worker(SharedTables.attach(int(memory)), listening, log, running)
    shutdown = GracefulShutdown(running, [signal.SIGTERM])
    shutdown.startService()
    # The programs that a worker runs must not inherit blocked signals.
    running.callWhenRunning(signal.pthread_sigmask, signal.SIG_UNBLOCK, WORKER_SIGNALS)
    channel = RpcChannel(worker.methods(), on_lost=shutdown.stop)
    running.adoptStreamConnection(
        int(channel_descriptor), socket.AF_UNIX, Factory.forProtocol(lambda: channel)
    )
    os.close(int(channel_descriptor))
    running.run()
