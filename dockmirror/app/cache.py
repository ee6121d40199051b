"""The cache: the stores on disk and in the bucket, and eviction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from ..admission.recall_enforcement import RecallEnforcement
from ..admission.recall_filter import RecalledContentFilter, RunningDeliveries
from ..admission.recalls import Generation, RecallReader
from ..concurrency.coroutines import RunInThread, run_in_pool
from ..concurrency.periodic_task import BusyTask
from ..config.settings import Settings
from ..interfaces import (
    IContentStore,
    IDocumentStore,
    ITagHistory,
    ITagStore,
    IUploadStaging,
)
from ..pullthrough.generations import TombstoneFilter, Tombstones
from ..store.downloads.context import DownloadContext, DownloadStats
from ..store.downloads.downloads import Downloads
from ..store.eviction.eviction import Eviction
from ..store.local_store import LocalStore, TagLocks
from ..store.memory_cache import MemoryCache
from ..store.store_directory import prepare_directory, try_writing
from ..store.store_index import UsageReport
from ..store.tag_history import LocalTagHistory
from ..store.upload_staging import LocalUploadStaging
from ..web.readiness import StoreCheck
from .cache_settings import (
    bucket_address,
    check_bucket_settings,
    check_cache_group,
    client_regions,
    make_budget,
)

if TYPE_CHECKING:
    from ..store.bucket.bucket import Bucket
    from ..store.bucket.bucket_stores import NearBuckets
    from ..store.bucket.tiered_store import TieredStore

THREADS = 8
"""Threads for file operations; nothing else runs in them."""
MEMORY_CACHE_SIZE = 64 * 1024 * 1024
"""Bytes of small contents that are cached in memory."""
CUT_PERIOD = 2.0
"""Seconds between two checks for running transfers of recalled contents."""
_log = Logger()


@frozen
class CacheParts:
    """The stores of a pull-through cache, and the service that runs them.

    :ivar deletions: remembers what was deleted through the mirror.
    :ivar upload_staging: stages blobs that are pushed through the mirror.
    :ivar eviction: keeps the cache within its budget, and knows its size.
    :ivar download_stats: counts the outcomes of downloads.
    :ivar usages: measures the bytes of each registry, and keeps the index of the directory up to date.
    :ivar in_thread: runs functions that block on files.
    :ivar store_checks: tell if content can be stored.
    :ivar tiered: the stores in the bucket behind those on the disk; None without a bucket.
    :ivar recalls: the recalls in force.
    :ivar deliveries: the bodies that a recall cuts off.
    :ivar generation: the number that voids decisions about admission.
    :ivar tag_history: remembers what tags have named.
    :ivar tag_locks: let one process at a time refresh a tag.
    :ivar root: the directory.
    :ivar near_buckets: copies of the bucket near clients; None without any.
    """

    contents: IContentStore
    tags: ITagStore
    documents: IDocumentStore
    deletions: Tombstones
    downloads: Downloads
    upload_staging: IUploadStaging
    service: Service
    eviction: Eviction
    download_stats: DownloadStats
    usages: UsageReport
    in_thread: RunInThread
    store_checks: Sequence[StoreCheck]
    tiered: TieredStore | None
    recalls: RecallReader
    deliveries: RunningDeliveries
    generation: Generation
    tag_history: ITagHistory
    tag_locks: TagLocks
    root: Path
    near_buckets: NearBuckets | None

    @property
    def bucket(self) -> Bucket | None:
        """The bucket; None if the cache is on the local disk only."""
        return None if self.tiered is None else self.tiered.bucket


def open_cache(root: Path, settings: Settings, reactor: Any) -> CacheParts:
    """Open the cache in a directory, which is created if missing.

    :raises UnusableDirectory: when the directory cannot hold a cache.
    :raises ConfigurationError: when the bucket's settings are invalid, or its extra is not installed; when
        the group cannot read the cache.
    """
    group = check_cache_group(root, settings)
    prepare_directory(root, group=group)
    check_cache_group(root, settings)  # again: directories above it may be new
    pool = ThreadPool(0, THREADS, "store")
    in_thread = run_in_pool(reactor, pool)
    eviction = Eviction(root, reactor, in_thread, make_budget(root, settings))
    local = LocalStore.open(root, reactor, in_thread, eviction.add, group)
    tiered = _open_tiered_store(local, settings, reactor, in_thread)
    store = tiered or local
    memory_cache = MemoryCache(store.contents, root, reactor, MEMORY_CACHE_SIZE)
    deletions = Tombstones(store.documents, reactor)
    recalls, deliveries = RecallReader(root, reactor), RunningDeliveries()
    contents = RecalledContentFilter(
        TombstoneFilter(memory_cache, deletions, reactor), recalls.current, reactor
    )

    async def try_disk() -> None:
        await in_thread(partial(try_writing, root))

    async def check_eviction() -> None:
        if eviction.failure is not None:
            raise OSError(eviction.failure)

    checks = [
        StoreCheck("the disk cannot be written", try_disk),
        StoreCheck("the cache cannot be kept within its budget", check_eviction),
    ]
    if tiered is not None:
        checks.append(StoreCheck("the bucket fails", tiered.probe))
    tag_history = LocalTagHistory(root, reactor, in_thread)
    context = DownloadContext(root, contents, reactor, in_thread, eviction.add)
    usages = UsageReport(root, reactor, in_thread)
    service = _CacheService(pool, eviction, usages)
    if tiered is not None:
        tiered.service.setServiceParent(service)
    near = _open_near_buckets(settings, reactor)
    if near is not None:
        near.service.setServiceParent(service)
    for each in _recall_tasks(root, recalls, deliveries, tiered, reactor, in_thread):
        each.setServiceParent(service)
    return CacheParts(
        contents=contents,
        tags=store.tags,
        documents=store.documents,
        deletions=deletions,
        downloads=Downloads(context),
        upload_staging=LocalUploadStaging(
            root, in_thread, reactor, eviction.add, lambda: eviction.limit // 2
        ),
        service=service,
        eviction=eviction,
        download_stats=context.stats,
        usages=usages,
        in_thread=in_thread,
        store_checks=checks,
        tiered=tiered,
        recalls=recalls,
        deliveries=deliveries,
        generation=Generation(root),
        tag_history=tag_history if tiered is None else _share_tag_history(tag_history, tiered, reactor),
        tag_locks=TagLocks(root, in_thread),
        root=root,
        near_buckets=near,
    )


def _recall_tasks(
    root: Path,
    recalls: RecallReader,
    deliveries: RunningDeliveries,
    tiered: TieredStore | None,
    reactor: Any,
    in_thread: RunInThread,
) -> Sequence[Service]:
    """Return the tasks that cut off running transfers, and remove the bytes of what is recalled."""

    def cut() -> None:
        count = deliveries.cut(recalls.current(), reactor.seconds())
        if count:
            _log.info("cut off {count} transfers of recalled contents", count=count)

    cuts = BusyTask(cut, lambda: bool(deliveries), CUT_PERIOD, reactor)
    deliveries.begun = cuts.wake
    bucket = None if tiered is None else tiered.bucket
    return [cuts, RecallEnforcement(root, recalls, reactor, in_thread, bucket)]


def _open_tiered_store(
    local: LocalStore, settings: Settings, reactor: Any, in_thread: RunInThread
) -> TieredStore | None:
    check_bucket_settings(settings)
    address = bucket_address(settings)
    if address is None:
        return None
    from ..store.bucket.tiered_store import open_tiered_store

    redirect = settings.redirect is True
    return open_tiered_store(local, address, redirect, settings.store_days, reactor, in_thread)


def _open_near_buckets(settings: Settings, reactor: Any) -> NearBuckets | None:
    if not settings.near_buckets:
        return None
    from ..store.bucket.blocking_bucket import BucketAddress
    from ..store.bucket.bucket_stores import open_near_buckets

    addresses = [
        BucketAddress(each.store or each.url or "", each.store_endpoint, each.store_region)
        for each in settings.near_buckets
    ]
    return open_near_buckets(list(zip(client_regions(settings), addresses, strict=True)), reactor)


def _share_tag_history(local: LocalTagHistory, tiered: TieredStore, clock: IReactorTime) -> ITagHistory:
    from ..store.bucket.bucket_tag_history import TieredTagHistory

    shared = TieredTagHistory(local, tiered.bucket, clock)
    shared.uploads.setServiceParent(tiered.service)
    return shared


class _CacheService(MultiService):
    """Runs the store's threads, and the eviction in them."""

    def __init__(self, pool: ThreadPool, eviction: Eviction, usages: UsageReport) -> None:
        super().__init__()
        self._pool = pool
        self._eviction = eviction
        self._usages = usages

    def startService(self) -> None:
        self._pool.start()
        self._eviction.start()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Fires when no thread is running any more."""
        return Deferred.fromCoroutine(self._stop(super().stopService()))

    async def _stop(self, children_stopped: Deferred[Any]) -> None:
        await children_stopped
        await self._usages.stop()
        await self._eviction.stop()
        self._pool.stop()
