"""Runs the history in a process: its reports are written once per second by a thread of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from queue import Full, Queue
from threading import Thread

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from .database import UnusableHistory, prepare_directory
from .pruning import HistoryBounds
from .recorder import PartReport, PullRecorder
from .writer import HistoryWriter

FLUSH_PERIOD = 1.0
_MAX_BATCHES = 30
_STOP_SECONDS = 5.0
_log = Logger()


class HistoryService(Service):
    """Hands the reports of a recorder to a writer in a thread.

    If the thread falls behind by half a minute, reports are lost: requests are never slowed down.
    """

    def __init__(
        self, recorder: PullRecorder, directory: Path, bounds: HistoryBounds, clock: IReactorTime
    ) -> None:
        recorder.take = self._put
        self._recorder = recorder
        self._clock = clock
        self._directory = directory
        self._bounds = bounds
        self._batches: Queue[tuple[Sequence[PartReport], float] | None] = Queue(_MAX_BATCHES)
        self._loop = LoopingCall(recorder.flush)
        self._loop.clock = clock
        self._thread = Thread(target=self._write, name="history", daemon=True)
        self._is_behind = False
        self._is_on = True

    def startService(self) -> None:
        super().startService()
        self._put(())  # creates the file
        self._thread.start()
        self._loop.start(FLUSH_PERIOD, now=False)

    def stopService(self) -> None:
        """Write what is left, for a few seconds at most."""
        super().stopService()
        self._loop.stop()
        self._recorder.flush()
        try:
            self._batches.put_nowait(None)
        except Full:
            return
        self._thread.join(_STOP_SECONDS)

    def _put(self, reports: Sequence[PartReport]) -> None:
        if not self._is_on:
            return
        try:
            self._batches.put_nowait((reports, self._clock.seconds()))
            self._is_behind = False
        except Full:
            if not self._is_behind:
                self._is_behind = True
                _log.warn("the history is written too slowly: a part of it is lost")

    def _write(self) -> None:
        try:
            writer = HistoryWriter(prepare_directory(self._directory), self._bounds)
        except UnusableHistory as error:
            _log.error("the mirror keeps no history: {error}", error=str(error))
            self._is_on = False
            return
        while (batch := self._batches.get()) is not None:
            try:
                writer.write(*batch)
            except Exception:
                _log.failure("cannot write the history")
        writer.close()
