"""Recalls carried out: stated, their bytes removed from a store, and told to those who share its bucket."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..concurrency.coroutines import RunInThread
from ..concurrency.periodic_task import PeriodicTask
from ..oci.digest import Digest
from ..store import files, layout, store_files
from ..store.eviction.store_budget import wait_for_usage_counter
from ..store.held_images import HeldImages
from .recalls import (
    EMPTY_BLOBS,
    Generation,
    Recall,
    RecallReader,
    Recalls,
    RecallScope,
    find_scope,
    new_generation,
    read_statements,
    write_statement,
)

if TYPE_CHECKING:
    from ..store.bucket.blocking_bucket import BucketAddress
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
        if self._exchange is None and not self._recalls.current().by_digest:
            return  # no thread is needed for that
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
        recalls = self._recalls.current().by_digest.values()
        recalled = [each.digest for each in recalls if not each.is_unreadable]
        stored = await self._in_thread(lambda: [each for each in recalled if is_stored(self._root, each)])
        if stored:
            freed = await self._in_thread(partial(remove_recalled, self._root, stored))
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
        statements = await self._in_thread(partial(read_statements, self._root))
        local = {digest: each for digest, each in statements.items() if not each.is_unreadable}
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
            await self._in_thread(partial(write_statement, self._root, each))
        if newer:
            now = self._clock.seconds()
            await self._in_thread(partial(Generation(self._root).advance, now))
        statements = {**local, **{each.digest: each for each in newer}}
        missing = [each for each in statements.values() if each.supersedes(remote.get(each.digest))]
        for each in missing:
            await self._bucket.put(layout.recall(each.digest), bytes(each))
        if missing:
            await self._bucket.put(layout.RECALLS_GENERATION, new_generation())
        return statements

    async def _read_all(self) -> Mapping[Digest, Recall]:
        found: dict[Digest, Recall] = {}
        for listed in await self._bucket.list(layout.RECALLS):
            data = await self._bucket.read(layout.RECALLS / listed.key.rpartition("/")[2])
            recall = Recall.parse(data[0]) if data else None
            if recall is not None:
                found[recall.digest] = recall
        return found


class NotRecallable(Exception):
    """The digest cannot be recalled, or was not; the message is a sentence for the operator."""


class BucketNotReached(Exception):
    """A statement is in force here and not in the bucket yet; the running mirror brings it there."""


@frozen
class RecallOrder:
    """Makes statements about recalls in a store, and in the bucket that it shares with others.

    :ivar bucket: None if there is none.
    :ivar now: returns the time in seconds since the epoch.
    """

    root: Path
    bucket: BucketAddress | None
    now: Callable[[], float]

    def begin(self, digest: Digest, reason: str) -> RecallScope:
        """Return what a recall concerns; a manifest is recalled before the search, which may take long.

        :raises NotRecallable: for a blob that holds nothing: images of every origin share it.
        """
        if digest in EMPTY_BLOBS:
            raise NotRecallable(f"{digest} is an empty blob, which many images share, and is never recalled")
        if self._is_manifest(digest):
            recall = self._recall(digest, reason)
            with suppress(BucketNotReached):
                self.publish(recall)
        return find_scope(self.root, digest)

    def complete(self, digest: Digest, reason: str, scope: RecallScope) -> Recall:
        """Put the recall into force in this store, with the layers that only its image needs."""
        recall = self._recall(digest, reason)
        if not scope.layers or scope.layers == recall.layers:
            return recall
        return self._state(evolve(recall, layers=scope.layers, changed=recall.changed + 0.001))

    def _is_manifest(self, digest: Digest) -> bool:
        """Return whether some repository has the digest as a manifest, without reading any."""
        images = HeldImages(self.root)
        return any(digest in images.list_manifests(each) for each in images.list_repositories())

    def _recall(self, digest: Digest, reason: str) -> Recall:
        """Put a recall into force in this store; the workers notice it with the next request."""
        previous = read_statements(self.root).get(digest)
        now = self.now()
        is_new = previous is None or previous.is_lifted
        since = now if is_new or previous is None else previous.since
        layers = previous.layers if previous is not None else ()
        changed = now if previous is None else max(now, previous.changed + 1)
        return self._state(Recall(digest, reason, since, changed, layers=layers))

    def lift(self, digest: Digest) -> Recall:
        """End a recall.

        :raises NotRecallable: when there is none in force.
        """
        previous = read_statements(self.root).get(digest)
        if previous is None or previous.is_lifted:
            raise NotRecallable(f"{digest} is not recalled")
        return self._state(previous.lift(self.now()))

    def publish(self, recall: Recall) -> bool:
        """Put a statement into the bucket, and delete the bytes of what it recalls from there.

        :returns: False if there is no bucket.
        :raises BucketNotReached: when the bucket fails.
        """
        if self.bucket is None:
            return False
        from obstore.exceptions import BaseError

        from ..store.bucket.blocking_bucket import open_for_small_objects

        bucket = open_for_small_objects(self.bucket)
        try:
            bucket.put(str(layout.recall(recall.digest)), bytes(recall), {})
            bucket.put(str(layout.RECALLS_GENERATION), new_generation(), {})
            if not recall.is_lifted:
                bucket.delete([str(layout.data(recall.digest))])
        except (BaseError, OSError) as error:
            raise BucketNotReached(f"{self.bucket} cannot be written: {type(error).__name__}") from error
        return True

    def _state(self, recall: Recall) -> Recall:
        write_statement(self.root, recall)
        Generation(self.root).advance(self.now())
        return recall


def is_stored(root: Path, digest: Digest) -> bool:
    return store_files.is_stored(root / layout.data(digest), digest)


def remove_recalled(root: Path, digests: Iterable[Digest]) -> int:
    """Delete recalled contents with their links and what only they need; return the number of bytes freed."""
    recalled = set(digests)
    unneeded = {layer for digest in recalled for layer in find_scope(root, digest).layers}
    wanted = recalled | unneeded
    with wait_for_usage_counter(root) as usage:
        stored = [store_files.stat_file(root / layout.data(each)) for each in wanted]
        freed = sum(each.size for each in stored if each is not None)
        removals = list(store_files.iter_removals(root, wanted.__contains__))
        for digest in wanted:
            own = [removal for linked, removal in removals if linked == digest]
            store_files.remove_content(root, digest, own)
        usage.add(-freed)
    return freed
