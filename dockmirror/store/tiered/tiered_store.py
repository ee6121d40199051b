"""Assemble a local store in front of a bucket."""

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
from .bucket_uploader import BucketUploader
from .tiered_stores import TieredContentStore, TieredDocumentStore, TieredTagStore

BUCKET_THREADS = 16
"""Threads that wait for the bucket."""
SIGNED_URL_LIFETIME = 300.0
"""Seconds for which a presigned URL is valid."""


@frozen
class TieredStore:
    """The stores of a mirror with a bucket, and the services they need."""

    contents: IContentStore
    tags: ITagStore
    documents: IDocumentStore
    service: MultiService
    bucket: Bucket
    uploads: BucketUploader

    @property
    def requests(self) -> Mapping[str, int]:
        """The number of requests to the bucket by this process, by kind; an upload in parts counts as one."""
        return self.bucket.requests

    @property
    def failing(self) -> bool:
        """True if the last request to the bucket failed."""
        return self.bucket.health.failure is not None

    @property
    def waiting(self) -> int:
        """The number of pending uploads, as of a moment ago."""
        return self.uploads.waiting


def open_tiered_store(
    root: Path, address: BucketAddress, redirect: bool, days: int | None, reactor: Any, in_thread: RunInThread
) -> TieredStore:
    """Open the store in a directory, in front of the store in a bucket.

    :param redirect: redirect clients to the bucket for public blobs that are not stored locally.
    :param days: after which unused contents are deleted from the bucket; None for never.
    :param in_thread: runs blocking calls on the directory's files.
    """
    threads = _Threads()
    bucket = Bucket(str(address), address.open, reactor, run_in_pool(reactor, threads.pool))
    bucket_contents = BucketContentStore(bucket, reactor, SIGNED_URL_LIFETIME if redirect else None)
    local_contents = LocalContentStore(root, reactor, in_thread)
    local_tags = LocalTagStore(root, reactor, in_thread)
    local_documents = LocalDocumentStore(root, reactor, in_thread)
    uploads = BucketUploader(root, bucket_contents, local_tags, local_documents, reactor, in_thread)
    service = MultiService()
    threads.setServiceParent(service)
    uploads.setServiceParent(service)
    on_use: Callable[[Digest], None] = _ignore_use
    if days is not None:
        journal = LastUsedJournal(bucket, reactor)
        expiry = BucketExpiry(bucket, journal, reactor, days * DAY)
        BucketMaintenance(journal, expiry, reactor).setServiceParent(service)
        on_use = journal.record

    async def enqueue(write: write_behind.PendingWrite) -> None:
        await in_thread(partial(write_behind.enqueue, root, write, reactor.seconds()))

    async def is_queued(write: write_behind.PendingDocument) -> bool:
        return await in_thread(partial(write_behind.is_queued, root, write))

    return TieredStore(
        TieredContentStore(local_contents, bucket_contents, enqueue, on_use),
        TieredTagStore(local_tags, BucketTagStore(bucket, reactor), enqueue, reactor),
        TieredDocumentStore(local_documents, BucketDocumentStore(bucket), enqueue, is_queued, reactor),
        service,
        bucket,
        uploads,
    )


class _Threads(Service):
    """Daemon threads, so that one that waits for a hanging bucket does not delay the exit."""

    def __init__(self) -> None:
        self.pool = ThreadPool(0, BUCKET_THREADS, "bucket")
        self.pool.threadFactory = partial(threading.Thread, daemon=True)  # type: ignore[assignment]

    def startService(self) -> None:
        super().startService()
        self.pool.start()


def _ignore_use(_: Digest) -> None:
    """Ignore a use."""
