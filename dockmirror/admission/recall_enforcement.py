"""Carries recalls out in a store: removes the bytes, and keeps them from coming back."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..concurrency.periodic_task import PeriodicTask
from ..interfaces import ContentKind, IContentStore, IStoredContent
from ..oci.digest import Digest
from ..oci.reference import Repository
from ..store import files, layout
from ..store.threads import RunInThread
from . import recall_files
from .recall_files import RecallReader
from .recalls import Recalls

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


@implementer(IContentStore)
class RecalledContentFilter:
    """Hides recalled contents, and neither stores nor links any, so that no pull brings them back.

    :param current: returns the recalls in force.
    """

    def __init__(self, contents: IContentStore, current: Callable[[], Recalls], clock: IReactorTime) -> None:
        self._contents = contents
        self._current = current
        self._clock = clock

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        return None if self._is_recalled(digest) else await self._contents.open(repository, digest, kind)

    async def holds(self, digest: Digest) -> bool:
        return not self._is_recalled(digest) and await self._contents.holds(digest)

    async def peek(self, digest: Digest) -> IStoredContent | None:
        return None if self._is_recalled(digest) else await self._contents.peek(digest)

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        return not self._is_recalled(digest) and await self._contents.link(repository, digest, kind)

    async def add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> bool:
        return not self._is_recalled(digest) and await self._contents.add(repository, digest, kind, data)

    async def unlink(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        await self._contents.unlink(repository, digest, kind)

    def _is_recalled(self, digest: Digest) -> bool:
        return self._current().find_blob(digest, self._clock.seconds()) is not None
