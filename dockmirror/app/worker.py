"""The program of a worker process: ``python -m dockmirror.app.worker``, started by the process that binds."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

from attrs import asdict
from twisted.internet.protocol import Factory
from twisted.logger import globalLogBeginner, textFileLogObserver

from ..config.settings import Settings
from ..status.status_values import WorkerState
from ..system.graceful_shutdown import GracefulShutdown
from ..web.readiness import ReadinessState
from ..web.shared_tables import SharedTables
from ..workers.rpc_channel import RpcChannel
from ..workers.sockets import InheritedSocketsReactor, ListeningSocket, adoptable
from .listeners import everywhere, listener
from .process import ServingProcess


class Worker:
    """One process, which begins when it is told by which settings.

    :param memory: which all of them share.
    :param sockets: those that listen, one for each endpoint.
    """

    def __init__(self, memory: SharedTables, sockets: Sequence[ListeningSocket], reactor: Any) -> None:
        self._memory = memory
        self._sockets = sockets
        self._reactor = reactor
        self._process: ServingProcess | None = None

    def asks(self) -> dict[str, Any]:
        """What the process that binds may ask for."""
        return {
            "begin": self._begin, "serve": self._serve, "metrics": self._metrics,
            "state": self._state, "noted": self._noted,
        }  # fmt: skip

    async def _begin(self, told: dict[str, Any]) -> None:
        settings = Settings.model_validate_json(told["settings"])
        process = ServingProcess(settings, dict(os.environ), self._reactor, self._memory, told["share"])
        adopting = InheritedSocketsReactor(self._reactor, self._sockets)
        for number, endpoint in enumerate(settings.listen or (everywhere(),)):
            adopted = adoptable(endpoint)
            listening = listener(f"listen.{number}", adopted, process.site, adopting, process.certificates)
            listening.setServiceParent(process.service)
        process.service.privilegedStartService()
        process.service.startService()
        self._reactor.addSystemEventTrigger("before", "shutdown", process.service.stopService)
        self._process = process

    async def _serve(self, settings: str) -> None:
        if self._process is not None:
            await self._process.serve(Settings.model_validate_json(settings))

    async def _metrics(self, _: object) -> str:
        return (await self._process.told.metrics()).decode() if self._process else ""

    async def _noted(self, _: object) -> dict[str, Any]:
        if self._process is None:
            return WorkerState(processes=0).as_json()
        return (await self._process.told.noted()).as_json()

    async def _state(self, _: object) -> dict[str, Any]:
        if self._process is None:
            return asdict(ReadinessState(False, "not listening", "none"))
        return asdict(await self._process.told.state())


def main(arguments: Sequence[str]) -> None:
    """Runs until it is told to end, or the process that started it is gone."""
    from twisted.internet import reactor

    running: Any = reactor
    for ours in (signal.SIGINT, signal.SIGHUP):  # which a terminal sends to all of us: one process decides
        signal.signal(ours, signal.SIG_IGN)
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)
    line, shared, *sockets = arguments
    listening = [ListeningSocket(*map(int, each.split(":"))) for each in sockets]
    worker = Worker(SharedTables.of(int(shared)), listening, running)
    ending = GracefulShutdown(running, [signal.SIGTERM])
    ending.startService()
    told = RpcChannel(worker.asks(), lost=ending.stop)
    running.adoptStreamConnection(int(line), socket.AF_UNIX, Factory.forProtocol(lambda: told))
    os.close(int(line))
    running.run()


if __name__ == "__main__":
    main(sys.argv[1:])
