"""Two mirrors, each with its disk, in front of one bucket in memory."""

from __future__ import annotations

from pathlib import Path

from obstore.store import MemoryStore
from twisted.internet.task import Clock

from dockmirror.oci.digest import Digest
from dockmirror.store import write_behind
from dockmirror.store.bucket.bucket_stores import BucketContentStore, BucketDocumentStore, BucketTagStore
from dockmirror.store.bucket.bucket_uploader import BucketUploader
from dockmirror.store.bucket.tiered_store import TieredContentStore, TieredDocumentStore, TieredTagStore
from dockmirror.store.local_store import LocalStore
from dockmirror.store.threads import RunInThread

from ...answering import now
from ..bucket.buckets import bucket
from ..bucket.test_bucket import Threads
from ..threads import inline

EPOCH = 1_700_000_000.0


class Machine:
    """A mirror's store; queued writes are uploaded when the test says so.

    :param bucket_threads: run the bucket's calls instead of ``threads``.
    :ivar threads: run the bucket's calls; the bucket may be down.
    """

    def __init__(
        self, root: Path, store: MemoryStore, clock: Clock, bucket_threads: RunInThread | None = None
    ) -> None:
        self.root, self.store, self.clock = root, store, clock
        self.threads = Threads()
        self.bucket = bucket(clock, store, bucket_threads or self.threads)
        self.used: list[Digest] = []
        contents = BucketContentStore(self.bucket, clock)
        self.local = LocalStore.open(root, clock, inline)
        self.contents = TieredContentStore(self.local.contents, contents, self.enqueue, self.used.append)
        self.tags = TieredTagStore(self.local.tags, BucketTagStore(self.bucket, clock), self.enqueue, clock)
        self.bucket_documents = BucketDocumentStore(self.bucket)
        self.documents = TieredDocumentStore(
            self.local.documents, self.bucket_documents, self.enqueue, self.is_queued, clock
        )
        self.uploads = BucketUploader(self.local, contents, clock, inline)

    async def enqueue(self, each: write_behind.PendingWrite) -> None:
        """Queue a write."""
        write_behind.enqueue(self.root, each, self.clock.seconds())

    async def is_queued(self, each: write_behind.PendingDocument) -> bool:
        """Report whether a write is queued."""
        return write_behind.is_queued(self.root, each)

    def upload(self) -> int:
        """Upload queued writes; return the number of those that remain."""
        now(self.uploads.run())
        return len(write_behind.list_pending(self.root))
