"""Upload queued writes to the bucket."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count, groupby
from pathlib import Path
from typing import BinaryIO

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...concurrency.coroutines import RunInThread
from ...concurrency.periodic_task import PeriodicTask
from ...oci.digest import Digest
from ...oci.request import Repository, Tag
from .. import layout, write_behind
from ..files import Version, file_version, is_sealed
from ..local_store import LocalStore
from ..store_files import ContentDeleted, open_file, read_verified, verify_or_delete
from ..write_behind import PendingContent, PendingTag, PendingWrite
from .blocking_bucket import PART_SIZE
from .bucket import BucketUnavailable
from .bucket_stores import BucketContentStore, BucketDocumentStore, BucketTagStore, link_metadata

POLL_INTERVAL = 1.0
"""Seconds between two checks of the queue; of an empty one only the directory's time is read."""
LISTING_INTERVAL = 60.0
"""Seconds after which an empty queue is listed again, although its directory is unchanged."""
ARRIVAL_GRACE = 60.0
"""Seconds after queueing during which a missing content may still be about to be stored."""
_CONCURRENCY = 4
_log = Logger()


class BucketUploader(PeriodicTask):
    """Uploads queued writes; one process of those that share the directory at a time.

    Failed writes stay queued, over a restart too, and are retried when the bucket works again, after all
    others: the bucket may refuse these alone. Writes that were claimed by a process that ended are uploaded
    by the next one.

    :ivar waiting: the number of queued writes at the last check.
    """

    def __init__(
        self,
        local: LocalStore,
        contents: BucketContentStore,
        clock: IReactorTime,
        in_thread: RunInThread,
    ) -> None:
        super().__init__(self.run, POLL_INTERVAL, clock, "cannot upload queued writes")
        self.waiting = 0
        self._empty_version: Version | None = None
        self._next_listing = 0.0
        self._failed: dict[str, int] = {}
        self._failures = count(1)
        self._local = local
        self._bucket = contents.bucket
        self._clock = clock
        self._contents = contents
        self._tags = BucketTagStore(contents.bucket, clock)
        self._documents = BucketDocumentStore(contents.bucket)
        self._in_thread = in_thread

    async def run(self) -> None:
        """Upload all queued writes, unless another process does."""
        version, now = file_version(self._local.root / layout.WRITE_BEHIND), self._clock.seconds()
        if version == self._empty_version and now < self._next_listing:
            return
        paths = await self._in_thread(partial(write_behind.list_pending, self._local.root))
        self.waiting = len(paths)
        if not paths:
            # A file that is added right after another change may leave the directory's time as it is.
            if version is None or now - version[2] / 1e9 > POLL_INTERVAL:
                self._empty_version, self._next_listing = version, now + LISTING_INTERVAL
            return
        lock = await self._in_thread(partial(write_behind.lock_queue, self._local.root))
        if lock is None:
            return
        try:
            await self._upload_all(paths)
        except BucketUnavailable:  # logged by the bucket
            pass
        finally:
            os.close(lock)

    async def _upload_all(self, paths: Sequence[Path]) -> None:
        """Upload a few writes at once, all of the same kind, so that links follow their targets.

        Those that have failed come last, each alone, and the latest to fail after all others.
        """
        order = {path: self._failed.get(write_behind.name_of(path), 0) for path in paths}
        self._failed = {write_behind.name_of(path): number for path, number in order.items() if number}
        for _, group in groupby(
            sorted(paths, key=order.__getitem__), lambda path: (order[path], _kind(path))
        ):
            remaining = list(group)
            while remaining:
                uploads = [Deferred.fromCoroutine(self._upload(path)) for path in remaining[:_CONCURRENCY]]
                done = await DeferredList(uploads, consumeErrors=True)
                for _, failure in done:  # only now: nothing may be under way when the lock is released
                    if isinstance(failure, Failure):
                        failure.raiseException()
                self.waiting -= len(uploads)
                del remaining[:_CONCURRENCY]

    async def _upload(self, path: Path) -> None:
        self._bucket.check_writable()
        try:
            write, claimed = await self._in_thread(partial(write_behind.claim, path))
        except OSError as error:
            _log.error("{path} cannot be read: {error}", path=path, error=str(error))
            return
        done = False
        try:
            done = write is None or await self._upload_write(write, claimed)
        except BucketUnavailable:
            self._failed[write_behind.name_of(path)] = next(self._failures)
            raise
        finally:
            if done:
                await self._in_thread(partial(write_behind.ack, claimed))
            elif write is not None:
                await self._in_thread(partial(write_behind.requeue, claimed, write, self._local.root))

    async def _upload_write(self, write: PendingWrite, path: Path) -> bool:
        if isinstance(write, PendingContent):
            return await self._upload_content(write, path)
        if isinstance(write, PendingTag):
            await self._upload_tag(write.repository, write.tag)
        else:
            data = await self._local.documents.read(write.name)
            if data is not None:
                await self._documents.write(write.name, data)
        return True

    async def _upload_tag(self, repository: Repository, tag: Tag) -> None:
        """Upload a tag; one that is forgotten meanwhile is removed, as the upload may have come last."""
        entry = await self._local.tags.get(repository, tag)
        if entry is not None:
            await self._tags.record(repository, tag, entry)
            if await self._local.tags.get(repository, tag) is None:
                await self._tags.forget(repository, tag)

    async def _upload_content(self, write: PendingContent, path: Path) -> bool:
        """Upload a content, unless the bucket has it, and its link; an evicted or corrupt one is given up."""
        key = layout.data(write.digest)
        metadata = link_metadata(write.repository, write.kind)
        try:
            content = await self._in_thread(partial(_open_intact, self._local.root / key, write.digest))
        except ContentDeleted as deleted:
            self._local.contents.count_deleted(deleted)
            _log.warn("{digest} is not uploaded: {error}", digest=write.digest, error=str(deleted))
            return True
        except OSError as error:
            since = await self._in_thread(lambda: path.stat().st_mtime)
            if 0 <= self._clock.seconds() - since < ARRIVAL_GRACE:
                return False
            _log.warn("{digest} is not uploaded: {error}", digest=write.digest, error=str(error))
            return True
        if isinstance(content, bytes):
            await self._bucket.put_new(key, content, metadata)
        else:
            with content:
                if not await self._contents.exists(write.digest):
                    await self._bucket.upload(key, content, metadata)
        await self._contents.write_link(write.repository, write.digest, write.kind)
        return True


def _kind(path: Path) -> str:
    return path.name.partition("-")[0]


def _open_intact(path: Path, digest: Digest) -> bytes | BinaryIO:
    """Return the bytes of a small content, or the open file of a large one, which may be evicted from now on.

    :raises ContentDeleted: if the content is corrupt.
    :raises OSError: if it is missing.
    """
    with ExitStack() as closing:
        file = closing.enter_context(os.fdopen(open_file(path), "rb"))
        status = os.fstat(file.fileno())
        if status.st_size <= PART_SIZE:
            return read_verified(path, file.fileno(), digest)
        if not is_sealed(status):
            verify_or_delete(path, file.fileno(), digest)
        closing.pop_all()
        return file
