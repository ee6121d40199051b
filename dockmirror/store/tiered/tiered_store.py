"""The bucket behind the disk, put together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.application.service import MultiService, Service
from twisted.python.threadpool import ThreadPool

from ...interfaces import IContentStore, IDocumentStore, ITagStore
from ...oci.digest import Digest
from .. import write_behind
from ..bucket.blocking_bucket import BucketAddress
from ..bucket.bucket import Bucket
from ..bucket.bucket_expiry import DAY, BucketExpiry, BucketMaintenance, LastUsedJournal
from ..bucket.bucket_stores import BucketContentStore, BucketDocumentStore, BucketTagStore
from ..local_store import LocalContentStore, LocalDocumentStore, LocalTagStore
from ..threads import RunInThread, run_in_pool
from .tiered_stores import TieredContentStore, TieredDocumentStore, TieredTagStore
from .write_behind_queue import WriteBehind

BUCKET_THREADS = 16
"""Threads that wait for the bucket."""
SIGNED_URL_LIFETIME = 300.0
"""Seconds for which an address holds that a client is sent to."""


@frozen
class TieredStore:
    """Everything that a mirror keeps, near and far."""

    contents: IContentStore
    tags: ITagStore
    documents: IDocumentStore
    service: MultiService
    bucket: Bucket
    uploads: WriteBehind

    @property
    def requests(self) -> Mapping[str, int]:
        """How many the bucket was asked by this process, by what; a file of several parts counts as one."""
        return self.bucket.requests

    @property
    def failing(self) -> bool:
        """Whether the bucket gave and took nothing when it was last asked."""
        return self.bucket.health.failure is not None

    @property
    def waiting(self) -> int:
        """How much was still to be uploaded a moment ago."""
        return self.uploads.waiting


def open_tiered_store(
    root: Path, address: BucketAddress, redirect: bool, days: int | None, reactor: Any, in_thread: RunInThread
) -> TieredStore:
    """The store in that directory, in front of the one in the bucket.

    :param redirect: whether clients are sent to the bucket for what is not near and public.
    :param days: after how many what nobody uses is deleted there; never where it is None.
    :param in_thread: runs what blocks on the directory's files.
    """
    threads = _Threads()
    bucket = Bucket(str(address), address.open, reactor, run_in_pool(reactor, threads.pool))
    far = BucketContentStore(bucket, reactor, SIGNED_URL_LIFETIME if redirect else None)
    near, near_tags = LocalContentStore(root, reactor, in_thread), LocalTagStore(root, reactor, in_thread)
    near_documents = LocalDocumentStore(root, reactor, in_thread)
    uploads = WriteBehind(root, bucket, far, near_tags, near_documents, reactor, in_thread)
    service = MultiService()
    threads.setServiceParent(service)
    uploads.setServiceParent(service)
    used: Callable[[Digest], None] = _nobody
    if days is not None:
        uses = LastUsedJournal(bucket, reactor)
        BucketMaintenance(uses, BucketExpiry(bucket, uses, reactor, days * DAY), reactor).setServiceParent(
            service
        )
        used = uses.record

    async def owe(each: write_behind.PendingWrite) -> None:
        await in_thread(partial(write_behind.enqueue, root, each, reactor.seconds()))

    async def is_owed(each: write_behind.PendingDocument) -> bool:
        return await in_thread(partial(write_behind.is_queued, root, each))

    return TieredStore(
        TieredContentStore(near, far, far, owe, used),
        TieredTagStore(near_tags, near_tags, BucketTagStore(bucket, reactor), owe, reactor),
        TieredDocumentStore(near_documents, BucketDocumentStore(bucket), owe, is_owed, reactor),
        service,
        bucket,
        uploads,
    )


class _Threads(Service):
    """Threads that are left behind at the end: one may hang in a bucket that does not answer."""

    def __init__(self) -> None:
        self.pool = ThreadPool(0, BUCKET_THREADS, "bucket")
        self.pool.threadFactory = partial(threading.Thread, daemon=True)  # type: ignore[assignment]

    def startService(self) -> None:
        super().startService()
        self.pool.start()


def _nobody(_: Digest) -> None:
    """Nobody wants to know what is used."""
