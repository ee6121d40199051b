"""A local store in front of a bucket: contents, tags and documents.

Reads are served locally if possible. Writes go to the local store and to the queue of uploads.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from attrs import frozen
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ...concurrency.coroutines import RunInThread, SingleFlight, TTLCache, run_in_pool
from ...interfaces import (
    ContentKind,
    IBucketBlob,
    IContentStore,
    IDocumentStore,
    IStoredContent,
    ITagStore,
    TagEntry,
)
from ...oci.digest import Digest
from ...oci.request import Repository, Tag
from .. import write_behind
from ..file_body import read_content
from ..local_store import LocalDocumentStore, LocalStore, LocalTagStore
from ..write_behind import PendingContent, PendingDocument, PendingTag, PendingWrite
from .blocking_bucket import BucketAddress, with_known_format
from .bucket import Bucket, BucketThreadPool, BucketUnavailable
from .bucket_expiry import DAY, BucketExpiry, BucketMaintenance, LastUsedJournal
from .bucket_stores import (
    SIGNED_URL_LIFETIME,
    BucketContentStore,
    BucketDocumentStore,
    BucketTagStore,
)
from .bucket_uploader import BucketUploader

T = TypeVar("T")
Enqueue = Callable[[PendingWrite], Awaitable[None]]
"""Queues a write to the bucket."""


async def _or_default(default: T, request: Awaitable[T]) -> T:
    """Return the awaitable's result, or the default if the bucket fails, which it logs itself."""
    try:
        return await request
    except OSError:
        return default


@implementer(IContentStore)
class TieredContentStore:
    """Contents that are served locally if possible; manifests from the bucket are stored locally.

    A blob from the bucket is an ``IBucketBlob``, which callers can fetch once for all readers. A write is
    queued before the content is published locally, so that a kill in between loses nothing.

    :param on_use: called with the digest on each use.
    """

    def __init__(
        self,
        local: IContentStore,
        bucket: BucketContentStore,
        enqueue: Enqueue,
        on_use: Callable[[Digest], None],
    ) -> None:
        self._local = local
        self._bucket = bucket
        self._enqueue = enqueue
        self._on_use = on_use
        self._look_ups: SingleFlight[tuple[Repository, Digest, ContentKind], IStoredContent | None] = (
            SingleFlight()
        )

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        key = repository, digest, kind
        opened = await self._local.open(*key)
        if opened is None:
            remote = await self._look_ups.get(key, lambda: self._open_in_bucket(*key))
            opened = await self._local.open(*key) or remote
        if opened is not None:
            self._on_use(digest)
        return opened

    async def holds(self, digest: Digest) -> bool:
        return await self._local.holds(digest) or await _or_default(False, self._bucket.holds(digest))

    async def peek(self, digest: Digest) -> IStoredContent | None:
        return await self._local.peek(digest) or await _or_default(None, self._bucket.peek(digest))

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        if await self._local.holds(digest):
            if not self._bucket.is_known_link(repository, digest, kind):
                await self._enqueue(PendingContent(repository, digest, kind))
            if await self._local.link(repository, digest, kind):
                return True
        return await _or_default(False, self._bucket.link(repository, digest, kind))

    async def add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> bool:
        await self._enqueue(PendingContent(repository, digest, kind))
        added = await self._local.add(repository, digest, kind, data)
        self._on_use(digest)
        return added

    async def unlink(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        """Remove the link; in the bucket it stays if the bucket fails."""
        await self._local.unlink(repository, digest, kind)
        await _or_default(None, self._bucket.unlink(repository, digest, kind))

    async def _open_in_bucket(
        self, repository: Repository, digest: Digest, kind: ContentKind
    ) -> IStoredContent | None:
        """Open the content in the bucket; None if it has been stored locally meanwhile.

        A manifest is stored locally, unless the disk fails. A blob that another repository has locally is
        only linked.
        """
        local = await self._local.open(repository, digest, kind)
        if local is not None:
            local.close()
            return None
        remote = await _or_default(None, self._bucket.open(repository, digest, kind))
        if IBucketBlob.providedBy(remote):
            await self._local.link(repository, digest, kind)
        elif remote is not None:
            data = await read_content(remote)
            with suppress(OSError):
                await self._local.add(repository, digest, kind, data)
        return remote


BUCKET_CHECK_INTERVAL = 60.0
"""Seconds since a tag's confirmation, or the last check, after which the bucket is asked for a newer one."""
REUPLOAD_INTERVAL = 3600.0
"""Seconds after which an unchanged tag is uploaded again with its new time of confirmation."""
_MAX_CACHED = 100_000


@implementer(ITagStore)
class TieredTagStore:
    """Tags of which the latest confirmation counts; the bucket is asked only if the local one is old."""

    def __init__(
        self, local: LocalTagStore, bucket: ITagStore, enqueue: Enqueue, clock: IReactorTime
    ) -> None:
        self._local = local
        self._bucket = bucket
        self._enqueue = enqueue
        self._clock = clock
        self._checked: TTLCache[tuple[Repository, Tag], bool] = TTLCache(clock, _MAX_CACHED)
        self._look_ups: SingleFlight[tuple[Repository, Tag], TagEntry | None] = SingleFlight()
        self._uploaded: TTLCache[tuple[Repository, Tag], Digest] = TTLCache(clock, _MAX_CACHED)

    async def get(self, repository: Repository, tag: Tag) -> TagEntry | None:
        key = repository, tag
        checked = self._checked.get(key)  # before the local read, which sees the outcome of that check
        local = await self._local.get(repository, tag)
        if checked or (
            local is not None and 0 <= self._clock.seconds() - local.confirmed < BUCKET_CHECK_INTERVAL
        ):
            return local
        return await self._look_ups.get(key, lambda: self._fetch_latest(repository, tag))

    async def put(self, repository: Repository, tag: Tag, digest: Digest, age: float = 0.0) -> None:
        await self._local.put(repository, tag, digest, age)
        if self._uploaded.get((repository, tag)) != digest:
            await self._enqueue(PendingTag(repository, tag))
            self._uploaded.put((repository, tag), digest, REUPLOAD_INTERVAL)

    async def forget(self, repository: Repository, tag: Tag) -> None:
        """Remove the tag; in the bucket it stays if the bucket fails, until it is removed again."""
        self._uploaded.drop((repository, tag))
        await self._local.forget(repository, tag)
        with suppress(OSError):
            await self._bucket.forget(repository, tag)

    async def forget_named(self, repository: Repository, digest: Digest) -> None:
        """Remove the tags, like ``forget``."""
        await self._local.forget_named(repository, digest)
        with suppress(OSError):
            await self._bucket.forget_named(repository, digest)

    async def _fetch_latest(self, repository: Repository, tag: Tag) -> TagEntry | None:
        """Return the latest confirmation, after storing it locally."""
        if self._checked.get((repository, tag)):
            return await self._local.get(repository, tag)
        try:
            remote = await self._bucket.get(repository, tag)
        except OSError:  # logged by the bucket
            return await self._local.get(repository, tag)
        local = await self._local.get(repository, tag)
        if remote is not None and (local is None or local.confirmed < remote.confirmed):
            await self._local.record(repository, tag, remote)
            local = remote
        self._checked.put((repository, tag), True, BUCKET_CHECK_INTERVAL)
        return local


ABSENT_TTL = 60.0
"""Seconds for which it is cached that the bucket lacks a document."""
REFRESH_TTL = 600.0
"""Seconds after which a document is read from the bucket again, without making the reader wait."""


@implementer(IDocumentStore)
class TieredDocumentStore:
    """Documents; a local write counts until it is uploaded, then the latest write of all mirrors does.

    :param is_pending: returns whether a local write of the document is still to be uploaded; only looks for
        files.
    """

    def __init__(
        self,
        local: LocalDocumentStore,
        bucket: IDocumentStore,
        enqueue: Enqueue,
        is_pending: Callable[[PendingDocument], bool],
        clock: IReactorTime,
    ) -> None:
        self._local = local
        self._bucket = bucket
        self._enqueue = enqueue
        self._is_pending = is_pending
        self._checked: TTLCache[str, bool] = TTLCache(clock, _MAX_CACHED)
        self._look_ups: SingleFlight[str, bytes | None] = SingleFlight()

    async def read(self, name: str) -> bytes | None:
        checked = self._checked.get(name)  # before the local read, which sees the outcome of that check
        local = await self._local.read(name)
        if checked:
            return local
        fetching = Deferred.fromCoroutine(self._look_ups.get(name, lambda: self._fetch_latest(name)))
        if local is None:
            return await fetching
        fetching.addErrback(lambda _: None)
        return local

    async def write(self, name: str, data: bytes) -> None:
        """Write the document.

        It is queued before the write, so that no older version is fetched from the bucket, and again
        after it, since the previous version may have been uploaded meanwhile.
        """
        self._checked.put(name, True, REFRESH_TTL)
        await self._enqueue(PendingDocument(name))
        await self._local.write(name, data)
        await self._enqueue(PendingDocument(name))

    async def _fetch_latest(self, name: str) -> bytes | None:
        """Return the bucket's version, after storing it locally, unless a local write counts.

        The bucket may have been read before a write that was uploaded meanwhile.
        """
        before = await self._local.read(name)
        if self._checked.get(name):
            return before
        is_pending = partial(self._is_pending, PendingDocument(name))
        was_pending = is_pending()
        try:
            remote = await self._bucket.read(name)
        except OSError:  # logged by the bucket
            return await self._local.read(name)
        if remote is not None and not was_pending:
            await self._local.replace(name, before, remote, is_pending)
        local = await self._local.read(name)
        self._checked.put(name, True, ABSENT_TTL if local is None else REFRESH_TTL)
        return remote if local is None else local


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
        """True if the last request to the bucket failed, or if writes to it fail and uploads wait."""
        return self.bucket.health.failure is not None or self._write_failure is not None

    async def probe(self) -> None:
        """Check that the bucket answers, and takes the uploads that wait.

        :raises BucketUnavailable: if it does not.
        """
        await self.bucket.probe()
        if self._write_failure is not None:
            raise BucketUnavailable(self._write_failure)

    @property
    def _write_failure(self) -> str | None:
        return self.bucket.write_health.failure if self.waiting else None

    @property
    def waiting(self) -> int:
        """The number of pending uploads, as of a moment ago."""
        return self.uploads.waiting


def open_tiered_store(
    local: LocalStore,
    address: BucketAddress,
    redirect: bool,
    days: int | None,
    reactor: Any,
    in_thread: RunInThread,
) -> TieredStore:
    """Open the store in a bucket, behind a local one.

    :param redirect: redirect clients to the bucket for public blobs that are not stored locally.
    :param days: after which unused contents are deleted from the bucket; None for never.
    :param in_thread: runs blocking calls on the directory's files.
    """
    threads = BucketThreadPool()
    bucket = Bucket(
        str(address), with_known_format(address.open), reactor, run_in_pool(reactor, threads.pool)
    )
    bucket_contents = BucketContentStore(bucket, reactor, SIGNED_URL_LIFETIME if redirect else None)
    uploads = BucketUploader(local, bucket_contents, reactor, in_thread)
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
        await in_thread(partial(write_behind.enqueue, local.root, write, reactor.seconds()))

    return TieredStore(
        TieredContentStore(local.contents, bucket_contents, enqueue, on_use),
        TieredTagStore(local.tags, BucketTagStore(bucket, reactor), enqueue, reactor),
        TieredDocumentStore(
            local.documents,
            BucketDocumentStore(bucket),
            enqueue,
            partial(write_behind.is_pending, local.root),
            reactor,
        ),
        service,
        bucket,
        uploads,
    )


def _ignore_use(_: Digest) -> None:
    """Ignore a use."""
