"""The history of pulls: its reader, and the service that writes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from typing import Any

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..concurrency.coroutines import RunInThread, run_in_pool
from ..concurrency.periodic_task import BusyTask
from ..config.settings import Settings
from ..history.database import FILE_NAME
from ..history.history_writer import HistoryBounds, HistoryWriter
from ..history.part_requests import PartRequest
from ..history.pulls import HistoryReader
from ..history.reader import SqliteHistory
from ..history.recorder import PullRecorder
from ..history.tracker import PullReport

FLUSH_PERIOD = 1.0
"""Seconds between two writes of what was pulled."""
_MAX_BATCHES = 30
_STOP_SECONDS = 5.0
_log = Logger()


@frozen
class History:
    """A reader of the history, and the threads in which it may be called."""

    reader: HistoryReader
    in_thread: RunInThread


def open_history(settings: Settings, reactor: Any) -> History | None:
    """Return what reads the history; None if the mirror keeps none."""
    if settings.history is None:
        return None
    reader = SqliteHistory(settings.history / FILE_NAME, time.time, settings.history_addresses)
    return History(reader, run_in_pool(reactor, reactor.getThreadPool()))


class HistoryService(Service):
    """Hands what a recorder has noted to a thread, which adds it up and writes it.

    If the thread falls behind by half a minute, a part is lost: requests are never slowed down.

    :param add_up: returns what requests report of each pull; it is called in the thread.
    """

    def __init__(
        self,
        recorder: PullRecorder,
        directory: Path,
        bounds: HistoryBounds,
        add_up: Callable[[Sequence[PartRequest]], Sequence[PullReport]],
        clock: IReactorTime,
    ) -> None:
        recorder.take = self._put
        self._flushes = BusyTask(recorder.flush, lambda: recorder.is_busy, FLUSH_PERIOD, clock)
        recorder.begun = self._flushes.wake
        self._recorder = recorder
        self._clock = clock
        self._directory = directory
        self._bounds = bounds
        self._add_up = add_up
        self._batches: Queue[tuple[Sequence[PartRequest], float] | None] = Queue(_MAX_BATCHES)
        self._thread = Thread(target=self._write, name="history", daemon=True)
        self._is_behind = False

    def startService(self) -> None:
        super().startService()
        self._put(())  # creates the file
        self._thread.start()
        self._flushes.startService()

    def stopService(self) -> None:
        """Write what is left, for a few seconds at most."""
        super().stopService()
        self._flushes.stopService()
        self._recorder.flush()
        try:
            self._batches.put_nowait(None)
        except Full:
            return
        self._thread.join(_STOP_SECONDS)

    def _put(self, requests: Sequence[PartRequest]) -> None:
        try:
            self._batches.put_nowait((requests, self._clock.seconds()))
            self._is_behind = False
        except Full:
            if not self._is_behind:
                self._is_behind = True
                _log.warn("the history is written too slowly: a part of it is lost")

    def _write(self) -> None:
        writer = HistoryWriter(self._directory / FILE_NAME, self._bounds)
        while (batch := self._batches.get()) is not None:
            requests, now = batch
            try:
                writer.write(self._add_up(requests), now)
            except Exception:
                _log.failure("cannot write the history")
        writer.close()
