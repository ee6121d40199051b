"""What is owed to the bucket, given to it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...concurrency.periodic_task import PeriodicTask
from ...interfaces import IDocumentStore, ITagStore
from .. import layout, write_behind
from ..bucket.blocking_bucket import PART_SIZE
from ..bucket.bucket import Bucket, BucketUnavailable
from ..bucket.bucket_stores import BucketContentStore, BucketDocumentStore, BucketTagStore, link_metadata
from ..threads import RunInThread
from ..write_behind import PendingContent, PendingTag, PendingWrite

POLL_INTERVAL = 1.0
"""Seconds between two looks at what is owed."""
ARRIVAL_GRACE = 60.0
"""Seconds since it was noted for which a content may still be about to be there."""
_CONCURRENCY = 4
_log = Logger()


class WriteBehind(PeriodicTask):
    """Gives by and by what is owed, by one process of those that share the directory at a time.

    What could not be given is kept, over a restart too, and tried again when the bucket is asked again; what
    is being given when the process ends, the next one gives.

    :ivar waiting: how much was owed at the last look.
    """

    def __init__(
        self,
        root: Path,
        bucket: Bucket,
        contents: BucketContentStore,
        near_tags: ITagStore,
        near_documents: IDocumentStore,
        clock: IReactorTime,
        in_thread: RunInThread,
    ) -> None:
        super().__init__(self.run, POLL_INTERVAL, clock, "what is owed is not given")
        self.waiting = 0
        self._root = root
        self._bucket = bucket
        self._near_tags = near_tags
        self._near_documents = near_documents
        self._clock = clock
        self._contents = contents
        self._tags = BucketTagStore(bucket, clock)
        self._documents = BucketDocumentStore(bucket)
        self._in_thread = in_thread

    async def run(self) -> None:
        """Gives what is owed, unless another process does."""
        paths = await self._in_thread(partial(write_behind.list_pending, self._root))
        self.waiting = len(paths)
        if not paths:
            return
        turn = await self._in_thread(partial(write_behind.lock_queue, self._root))
        if turn is None:
            return
        try:
            await self._give_all(paths)
        except BucketUnavailable:  # of which the bucket tells
            pass
        finally:
            os.close(turn)

    async def _give_all(self, paths: Sequence[Path]) -> None:
        """A few at once, of one kind: what is told of is there before."""
        for _, alike in groupby(paths, key=lambda path: path.name.partition("-")[0]):
            left = list(alike)
            while left:
                giving = [Deferred.fromCoroutine(self._give(path)) for path in left[:_CONCURRENCY]]
                given = await DeferredList(giving, consumeErrors=True)
                for _, failure in given:  # once nothing is under way: it would be given a second time beside
                    if isinstance(failure, Failure):
                        failure.raiseException()
                self.waiting -= len(giving)
                del left[:_CONCURRENCY]

    async def _give(self, path: Path) -> None:
        self._bucket.health.check()
        try:
            each, taken = await self._in_thread(partial(write_behind.claim, path))
        except OSError as error:
            _log.error("{path} cannot be read: {error}", path=path, error=str(error))
            return
        given = False
        try:
            given = each is None or await self._given(each, taken)
        finally:
            if given:
                await self._in_thread(partial(write_behind.ack, taken))
            elif each is not None:
                await self._in_thread(partial(write_behind.requeue, taken, each, self._root))

    async def _given(self, each: PendingWrite, noted: Path) -> bool:
        if isinstance(each, PendingContent):
            return await self._give_content(each, noted)
        if isinstance(each, PendingTag):
            tagged = await self._near_tags.get(each.repository, each.tag)
            if tagged is not None:
                await self._tags.record(each.repository, each.tag, tagged)
        else:
            data = await self._near_documents.read(each.name)
            if data is not None:
                await self._documents.write(each.name, data)
        return True

    async def _give_content(self, each: PendingContent, noted: Path) -> bool:
        """Its bytes first, unless they are there; what was evicted meanwhile cannot be given any more."""
        key = layout.data(each.digest)
        file, metadata = self._root / key, link_metadata(each.repository, each.kind)
        try:
            size = await self._in_thread(lambda: file.stat().st_size)
            small = await self._in_thread(file.read_bytes) if size <= PART_SIZE else None
        except OSError as error:
            since = await self._in_thread(lambda: noted.stat().st_mtime)
            if 0 <= self._clock.seconds() - since < ARRIVAL_GRACE:
                return False
            _log.warn("{digest} is not uploaded: {error}", digest=each.digest, error=str(error))
            return True
        if small is not None:
            await self._bucket.put_new(key, small, metadata)
        elif not await self._contents.exists(each.digest):
            await self._bucket.upload(key, file, metadata)
        await self._contents.write_link(each.repository, each.digest, each.kind)
        return True
