"""Carries recalls out: removes the bytes from a store, and tells the other mirrors that share its bucket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..concurrency.coroutines import PeriodicTask, RunInThread
from ..oci.digest import Digest
from ..store import files, layout
from . import recall_files
from .recall_files import Generation, RecallReader
from .recalls import Recall, Recalls

if TYPE_CHECKING:
    from ..store.bucket.bucket import Bucket

PERIOD = 10.0
"""Seconds between two looks at the recalls, here and in the bucket."""
FULL_PERIOD = 600.0
"""Seconds after which the recalls in the bucket are listed even if none seems to have changed."""
_log = Logger()


class RecallEnforcement(PeriodicTask):
    """Removes recalled contents from a directory, whenever and however they came there.

    One process of those that share the directory does it, as long as it lives.

    :param bucket: with which recalls are exchanged; None if there is none.
    """

    def __init__(
        self,
        root: Path,
        recalls: RecallReader,
        clock: IReactorTime,
        in_thread: RunInThread,
        bucket: Bucket | None = None,
    ) -> None:
        super().__init__(self.run, PERIOD, clock, "cannot carry out the recalls", at_once=True)
        self._root = root
        self._recalls = recalls
        self._in_thread = in_thread
        self._exchange = None if bucket is None else RecallExchange(root, bucket, clock, in_thread)
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
                await self._exchange.run()
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


class RecallExchange:
    """Brings the statements of a directory and of a bucket to the same state; the later of two counts.

    An object in the bucket, the generation, differs after each change; so a mirror makes one small request
    as long as nothing has changed.  The bytes of recalled contents are deleted from the bucket.
    """

    def __init__(self, root: Path, bucket: Bucket, clock: IReactorTime, in_thread: RunInThread) -> None:
        self._root = root
        self._bucket = bucket
        self._clock = clock
        self._in_thread = in_thread
        self._seen: tuple[bytes, Mapping[Digest, Recall]] | None = None
        self._listed = 0.0

    async def run(self) -> None:
        """Exchange them, unless the bucket fails, which it logs itself.

        :raises OSError: if the disk fails.
        """
        from ..store.bucket.bucket import BucketUnavailable  # a mirror without a bucket needs none of it

        with suppress(BucketUnavailable):
            await self._run()

    async def _run(self) -> None:
        found = await self._bucket.read(layout.RECALLS_GENERATION)
        local = await self._in_thread(partial(recall_files.read_statements, self._root))
        seen, now = (found[0] if found else b"", local), self._clock.seconds()
        if seen == self._seen and 0 <= now - self._listed < FULL_PERIOD:
            return
        statements = await self._merge(local)
        recalled = Recalls.of(statements.values()).by_digest
        await self._bucket.delete([str(layout.data(each)) for each in recalled])
        self._seen, self._listed = (seen[0], statements), now

    async def _merge(self, local: Mapping[Digest, Recall]) -> Mapping[Digest, Recall]:
        remote = await self._read_all()
        newer = [each for each in remote.values() if each.supersedes(local.get(each.digest))]
        for each in newer:
            await self._in_thread(partial(recall_files.write_statement, self._root, each))
        if newer:
            now = self._clock.seconds()
            await self._in_thread(partial(Generation(self._root).advance, now))
        statements = {**local, **{each.digest: each for each in newer}}
        missing = [each for each in statements.values() if each.supersedes(remote.get(each.digest))]
        for each in missing:
            await self._bucket.put(layout.recall(each.digest), bytes(each))
        if missing:
            await self._bucket.put(layout.RECALLS_GENERATION, recall_files.new_generation())
        return statements

    async def _read_all(self) -> Mapping[Digest, Recall]:
        found: dict[Digest, Recall] = {}
        for listed in await self._bucket.list(layout.RECALLS):
            data = await self._bucket.read(layout.RECALLS / listed.key.rpartition("/")[2])
            recall = Recall.parse(data[0]) if data else None
            if recall is not None:
                found[recall.digest] = recall
        return found
