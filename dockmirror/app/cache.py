"""The cache: the stores on disk and in the bucket, eviction, and the refresh of pinned images."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
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
from ..admission.recall_files import Generation, RecallReader
from ..admission.recall_filter import RecalledContentFilter, RunningDeliveries
from ..concurrency.caching import TTLCache
from ..concurrency.periodic_task import BusyTask, PeriodicTask
from ..config.settings import Settings
from ..interfaces import (
    IContentStore,
    IDocumentStore,
    IDownloads,
    IRegistry,
    ITagHistory,
    ITagStore,
    IUploadStaging,
)
from ..oci.errors import RegistryError, summarize_error
from ..pull import ImagePuller, PulledImage, Wanted
from ..pullthrough.generations import TombstoneFilter, Tombstones
from ..status.status_values import DownloadStatus, Usage
from ..store import pins
from ..store.downloads.context import DownloadContext, DownloadStats
from ..store.downloads.downloads import Downloads
from ..store.eviction.eviction import Eviction
from ..store.local_store import LocalStore, TagLocks
from ..store.memory_cache import MemoryCache
from ..store.pins import Pin
from ..store.store_directory import prepare_directory, try_writing
from ..store.store_index import StoreIndex, UsageReport
from ..store.tag_history import LocalTagHistory
from ..store.threads import RunInThread, run_in_pool
from ..store.upload_staging import LocalUploadStaging
from ..web.readiness import StoreCheck
from .cache_settings import bucket_address, check_bucket_settings, check_cache_group, make_budget, regions

if TYPE_CHECKING:
    from ..store.bucket.near_buckets import NearBuckets
    from ..store.bucket.tiered_store import TieredStore

THREADS = 8
"""Threads for file operations; nothing else runs in them."""
MEMORY_CACHE_SIZE = 64 * 1024 * 1024
"""Bytes of small contents that are cached in memory."""
REFRESH_PERIOD = 6 * 3600.0
"""Seconds after which a pinned image is pulled again."""
REFRESH_POLL = 10.0
"""Seconds between two checks for pinned images that are due; a new pin is pulled that soon."""
REFRESH_RETRY = 900.0
"""Seconds until a failed refresh is tried again."""
CUT_PERIOD = 2.0
"""Seconds between two checks for running transfers of recalled contents."""
_REFRESH_JOBS = 2
_MAX_FAILURES = 10_000
_log = Logger()


@frozen
class CacheParts:
    """The stores of a pull-through cache, and the service that runs them.

    :ivar deletions: remembers what was deleted through the mirror.
    :ivar upload_staging: stages blobs that are pushed through the mirror.
    :ivar eviction: keeps the cache within its budget, and knows its size.
    :ivar download_stats: counts the outcomes of downloads.
    :ivar active_downloads: returns the downloads in progress.
    :ivar usage: measures the bytes of each registry; None until the first measurement.
    :ivar index: what the directory holds; the report of usage keeps it up to date.
    :ivar in_thread: runs functions that block on files.
    :ivar store_checks: tell if content can be stored.
    :ivar bucket: the bucket; None if the cache is on the local disk only.
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
    downloads: IDownloads
    upload_staging: IUploadStaging
    service: Service
    eviction: Eviction
    download_stats: DownloadStats
    active_downloads: Callable[[], Sequence[DownloadStatus]]
    usage: Callable[[], Coroutine[Any, Any, Usage | None]]
    index: StoreIndex
    in_thread: RunInThread
    store_checks: Sequence[StoreCheck]
    bucket: TieredStore | None
    recalls: RecallReader
    deliveries: RunningDeliveries
    generation: Generation
    tag_history: ITagHistory
    tag_locks: TagLocks
    root: Path
    near_buckets: NearBuckets | None


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
    tiered = _tiered(local, settings, reactor, in_thread)
    store = tiered or local
    memory_cache = MemoryCache(store.contents, root, reactor, MEMORY_CACHE_SIZE)
    deletions = Tombstones(store.documents, reactor)
    recalls, deliveries = RecallReader(root, reactor), RunningDeliveries()
    contents = RecalledContentFilter(
        TombstoneFilter(memory_cache, deletions, reactor), recalls.current, reactor
    )

    async def try_disk() -> None:
        await in_thread(partial(try_writing, root))

    checks = [StoreCheck("the disk cannot be written", try_disk)]
    if tiered is not None:
        checks.append(StoreCheck("the bucket fails", tiered.bucket.probe))
    tag_history = LocalTagHistory(root, reactor, in_thread)
    context = DownloadContext(root, contents, reactor, in_thread, eviction.add)
    downloads = Downloads(context)
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
        contents,
        store.tags,
        store.documents,
        deletions,
        downloads,
        LocalUploadStaging(root, in_thread, reactor, eviction.add, lambda: eviction.limit // 2),
        service,
        eviction,
        context.stats,
        downloads.active,
        usages.latest,
        usages.index,
        in_thread,
        checks,
        tiered,
        recalls,
        deliveries,
        Generation(root),
        tag_history if tiered is None else _share_tag_history(tag_history, tiered, reactor),
        TagLocks(root, in_thread),
        root,
        near,
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


def _tiered(
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
    from ..store.bucket.near_buckets import open_near_buckets

    addresses = [
        BucketAddress(each.store or each.url or "", each.store_endpoint, each.store_region)
        for each in settings.near_buckets
    ]
    return open_near_buckets(list(zip(regions(settings), addresses, strict=True)), reactor)


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


class PinRefresh(PeriodicTask):
    """Pulls the pinned images again through the mirror's own registries; one process does it for all.

    The first check is after a pause, so that clients are served first.

    :param registry: returns the registry of the mirror's own host, which a reload replaces.
    """

    def __init__(
        self, root: Path, clock: IReactorTime, in_thread: RunInThread, registry: Callable[[], IRegistry]
    ) -> None:
        super().__init__(self._check, REFRESH_POLL, clock, "cannot refresh the pinned images")
        self._root = root
        self._clock = clock
        self._in_thread = in_thread
        self._registry = registry
        self._failed: TTLCache[Pin, bool] = TTLCache(clock, _MAX_FAILURES)

    async def _check(self) -> None:
        try:
            await self._refresh_due()
        except OSError as error:
            _log.warn("cannot refresh the pinned images: {error}", error=error)

    async def _refresh_due(self) -> None:
        if not await self._due():
            return
        lock = await self._in_thread(partial(pins.lock_refresh, self._root))
        if lock is None:
            return
        try:
            for pin in await self._due():
                await self._refresh(pin)
        finally:
            os.close(lock)

    async def _due(self) -> list[Pin]:
        now = self._clock.seconds()
        pinned = await self._in_thread(lambda: list(pins.iter_pins(self._root)))
        return [
            pin
            for pin, refreshed in pinned
            if not 0 <= now - refreshed < REFRESH_PERIOD and not self._failed.get(pin)
        ]

    async def _refresh(self, pin: Pin) -> None:
        wanted, pulled = Wanted(pin.repository, pin.reference, pin.platforms), PulledImage()
        try:
            await ImagePuller(self._registry(), _REFRESH_JOBS).image(wanted, pulled)
        except (RegistryError, OSError) as error:
            _log.warn(
                "cannot refresh the pinned image {image}: {error}",
                image=str(pin),
                error=summarize_error(error),
            )
            self._failed.put(pin, True, REFRESH_RETRY)
            return
        await self._in_thread(partial(pins.mark_refreshed, self._root, pin, self._clock.seconds()))
        _log.info(
            "refreshed the pinned image {image}: fetched {fetched} blobs, {size} bytes",
            image=str(pin), fetched=pulled.fetched, size=pulled.bytes,
        )  # fmt: skip
