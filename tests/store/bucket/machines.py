"""Buckets in memory, and mirrors that share one: obstore's own keep the contract of real buckets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path, PurePosixPath
from typing import TypeVar

from obstore.exceptions import GenericError
from obstore.store import MemoryStore, ObjectStore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from dockmirror.concurrency.coroutines import RunInThread
from dockmirror.oci.digest import Digest
from dockmirror.store import write_behind
from dockmirror.store.bucket.blocking_bucket import with_known_format
from dockmirror.store.bucket.bucket import Bucket
from dockmirror.store.bucket.bucket_stores import BucketContentStore, BucketDocumentStore, BucketTagStore
from dockmirror.store.bucket.bucket_uploader import BucketUploader
from dockmirror.store.bucket.tiered_store import TieredContentStore, TieredDocumentStore, TieredTagStore
from dockmirror.store.local_store import LocalStore

from ...answering import now
from ..threads import inline

T = TypeVar("T")


class BucketThreads:
    """Runs calls at once, or fails them while the bucket is down."""

    def __init__(self) -> None:
        self.down = False
        self.calls = 0

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]:
        self.calls += 1

        async def run() -> T:
            if self.down:
                raise GenericError("HTTP error: no route to http://h/x?X-Amz-Signature=s3cret\n\nDebug")
            return call()

        return run()


class SigningBucket(Bucket):
    """Signs the addresses of a bucket in memory, which cannot do so itself."""

    async def sign_url(self, key: PurePosixPath, seconds: float) -> str:
        return f"https://bucket.example/{key}?signed"


def bucket(
    clock: IReactorTime,
    store: ObjectStore | None = None,
    in_thread: RunInThread = inline,
    kind: type[Bucket] = Bucket,
) -> Bucket:
    """Return a bucket, empty or with the given objects."""
    objects = MemoryStore() if store is None else store
    return kind("the bucket", with_known_format(lambda: objects), clock, in_thread)


class Machine:
    """A mirror's store; queued writes are uploaded when the test says so.

    :param bucket_threads: run the bucket's calls instead of ``threads``.
    :ivar threads: run the bucket's calls; the bucket may be down.
    """

    def __init__(
        self, root: Path, store: MemoryStore, clock: Clock, bucket_threads: RunInThread | None = None
    ) -> None:
        self.root, self.store, self.clock = root, store, clock
        self.threads = BucketThreads()
        self.bucket = bucket(clock, store, bucket_threads or self.threads)
        self.used: list[Digest] = []
        contents = BucketContentStore(self.bucket, clock)
        self.added: list[int] = []
        self.local = LocalStore.open(root, clock, inline, self.added.append)
        self.contents = TieredContentStore(self.local.contents, contents, self.enqueue, self.used.append)
        self.tags = TieredTagStore(self.local.tags, BucketTagStore(self.bucket, clock), self.enqueue, clock)
        self.bucket_documents = BucketDocumentStore(self.bucket)
        self.documents = TieredDocumentStore(
            self.local.documents, self.bucket_documents, self.enqueue, self.is_pending, clock
        )
        self.uploads = BucketUploader(self.local, contents, clock, inline)

    async def enqueue(self, each: write_behind.PendingWrite) -> None:
        write_behind.enqueue(self.root, each, self.clock.seconds())

    def is_pending(self, each: write_behind.PendingDocument) -> bool:
        return write_behind.is_pending(self.root, each)

    def upload(self) -> int:
        """Upload queued writes; return the number of those that remain."""
        now(self.uploads.run())
        return len(write_behind.list_pending(self.root))
