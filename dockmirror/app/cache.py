"""The store assembled: what is kept on this machine's disk, and what of it goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.python.threadpool import ThreadPool

from ..config.settings import ConfigurationError, Settings
from ..interfaces import IContentStore, IDocumentStore, IDownloads, ITagStore, IUploadStaging
from ..pullthrough.generations import TombstoneFilter, Tombstones
from ..status.status_values import DownloadStatus, Usage
from ..store.bucket.bucket_address import BucketAddress, is_available
from ..store.downloads.context import DownloadContext, DownloadStats
from ..store.downloads.downloads import Downloads
from ..store.eviction.budget import Budget
from ..store.eviction.eviction import Eviction
from ..store.local_contents import LocalContentStore
from ..store.local_documents import LocalDocumentStore
from ..store.local_tags import LocalTagStore
from ..store.memory_cache import MemoryCache
from ..store.size_tracking import SizeTrackingStore
from ..store.store_directory import prepare_directory, try_writing
from ..store.threads import RunInThread, run_in_pool
from ..store.tiered.tiered_store import TieredStore, open_tiered_store
from ..store.upload_staging import LocalUploadStaging
from ..store.usage_report import UsageReport
from ..web.readiness import StoreCheck

THREADS = 8
"""Threads for files, which nothing else keeps busy and which keep nothing else busy."""
REMEMBERED = 64 * 1024 * 1024
"""Bytes of small contents that are held in memory."""


@frozen
class CacheParts:
    """Everything that a pull-through registry keeps things in, and the service that it lives by.

    :ivar eviction: what keeps to the budget, and knows how much is held.
    :ivar deletions: what was deleted through the mirror.
    :ivar fetched: what has come of the blobs that were fetched.
    :ivar under_way: those that are being fetched.
    :ivar usage: what each registry takes up, as far as is known.
    :ivar in_thread: runs what blocks on its files.
    :ivar shared: the bucket behind it; None where there is none.
    :ivar checks: whether anything can be kept.
    """

    contents: IContentStore
    tags: ITagStore
    documents: IDocumentStore
    deletions: Tombstones
    downloads: IDownloads
    pushed: IUploadStaging
    service: Service
    eviction: Eviction
    fetched: DownloadStats
    under_way: Callable[[], Sequence[DownloadStatus]]
    usage: Callable[[], Coroutine[Any, Any, Usage | None]]
    in_thread: RunInThread
    checks: Sequence[StoreCheck]
    shared: TieredStore | None


def open_cache(root: Path, settings: Settings, reactor: Any) -> CacheParts:
    """The cache in this directory, which is made where it is not there.

    :raises UnusableDirectory: when it cannot hold one.
    :raises ConfigurationError: when it is to stand before a bucket that cannot be reached at all.
    """
    prepare_directory(root)
    pool = ThreadPool(0, THREADS, "store")
    in_thread = run_in_pool(reactor, pool)
    tiered = _tiered(root, settings, reactor, in_thread)
    kept = LocalContentStore(root, reactor, in_thread) if tiered is None else tiered.contents
    eviction = Eviction(root, reactor, in_thread, budget(root, settings))
    remembered = MemoryCache(kept, root, reactor, REMEMBERED)
    documents = LocalDocumentStore(root, reactor, in_thread) if tiered is None else tiered.documents
    deletions = Tombstones(documents, reactor)
    contents = TombstoneFilter(SizeTrackingStore(remembered, eviction.grown), deletions, reactor)

    async def try_disk() -> None:
        await in_thread(partial(try_writing, root))

    checks = [StoreCheck("the disk cannot be written", try_disk)]
    if tiered is not None:
        checks.append(StoreCheck("the bucket fails", tiered.bucket.probe))
    context = DownloadContext(root, contents, reactor, in_thread, eviction.grown)
    downloads = Downloads(context)
    usages = UsageReport(root, reactor, in_thread)
    keeping = _Keeping(pool, eviction, usages)
    if tiered is not None:
        tiered.service.setServiceParent(keeping)
    return CacheParts(
        contents,
        LocalTagStore(root, reactor, in_thread) if tiered is None else tiered.tags,
        documents,
        deletions,
        downloads,
        LocalUploadStaging(root, in_thread, reactor, eviction.grown, lambda: eviction.limit // 2),
        keeping,
        eviction,
        context.stats,
        downloads.active,
        usages.latest,
        in_thread,
        checks,
        tiered,
    )


def _tiered(root: Path, settings: Settings, reactor: Any, in_thread: RunInThread) -> TieredStore | None:
    if settings.store is None:
        for key in ("store_endpoint", "store_days", "redirect"):
            if getattr(settings, key):
                raise ConfigurationError(f"{key}: expected a store, which it is about")
        return None
    if not is_available():
        raise ConfigurationError("store: expected dockmirror[objects], which speaks to buckets, to be there")
    address = BucketAddress(settings.store, settings.store_endpoint)
    return open_tiered_store(root, address, settings.redirect, settings.store_days, reactor, in_thread)


def has_cache(settings: Settings) -> bool:
    """Whether anything is kept: without a cache the mirror is a relay."""
    return settings.cache is not None and (settings.cache_size is None or bool(settings.cache_size))


def budget(root: Path, settings: Settings) -> Budget:
    """How much may be held there."""
    status = os.statvfs(root)
    default = Budget.default(status)
    total = status.f_blocks * status.f_frsize
    size = settings.cache_size.of(total) if settings.cache_size is not None else default.size
    share = settings.min_free.of(total) / total if total else 0.0
    return Budget(size, settings.min_free.of(total), int(status.f_files * share))


class _Keeping(MultiService):
    """The threads of the store, and what runs in them by itself."""

    def __init__(self, pool: ThreadPool, eviction: Eviction, usages: UsageReport) -> None:
        super().__init__()
        self._pool = pool
        self._eviction = eviction
        self._usages = usages

    def startService(self) -> None:
        """Called when the reactor is about to run."""
        self._pool.start()
        self._eviction.start()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Fires when no thread is at work any more."""
        return Deferred.fromCoroutine(self._stop(super().stopService()))

    async def _stop(self, others: Deferred[Any]) -> None:
        await others
        await self._usages.stop()
        await self._eviction.stop()
        self._pool.stop()
