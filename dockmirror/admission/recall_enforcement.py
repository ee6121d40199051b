"""Carries recalls out in a store: removes the bytes, and exchanges recalls with other mirrors."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..concurrency.periodic_task import PeriodicTask
from ..store import files, layout
from ..store.threads import RunInThread
from . import recall_files
from .recall_files import RecallReader

PERIOD = 10.0
"""Seconds between two looks at the recalls, here and in the bucket."""

_log = Logger()


class RecallEnforcement(PeriodicTask):
    """Removes recalled contents from a directory, whenever and however they came there.

    One process of those that share the directory does it, as long as it lives.

    :param exchange: exchanges recalls with the bucket; None if there is none.
    """

    def __init__(
        self,
        root: Path,
        recalls: RecallReader,
        clock: IReactorTime,
        in_thread: RunInThread,
        exchange: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(self.run, PERIOD, clock, "cannot carry out the recalls", at_once=True)
        self._root = root
        self._recalls = recalls
        self._in_thread = in_thread
        self._exchange = exchange
        self._lock: int | None = None

    def stopService(self) -> None:
        super().stopService()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def run(self) -> None:
        """Remove what is recalled, after an exchange with the bucket, unless another process does."""
        if self._lock is None:
            self._lock = await self._in_thread(partial(files.lock, self._root / layout.RECALLS_LOCK))
        if self._lock is None:
            return
        try:
            if self._exchange is not None:
                await self._exchange()
        except OSError as error:
            _log.warn("the recalls cannot be stored: {error}", error=str(error))
        await self._remove()

    async def _remove(self) -> None:
        recalled = list(self._recalls.current().by_digest)
        stored = await self._in_thread(
            lambda: [each for each in recalled if recall_files.is_stored(self._root, each)]
        )
        if stored:
            freed = await self._in_thread(partial(recall_files.remove_recalled, self._root, stored))
            _log.info(
                "removed {count} recalled contents with what only they needed: {size} bytes",
                count=len(stored), size=freed,
            )  # fmt: skip
