"""Two machines, each with its disk, in front of one bucket in memory."""

from __future__ import annotations

from pathlib import Path

from obstore.store import MemoryStore
from twisted.internet.task import Clock

from dockmirror.oci.digest import Digest
from dockmirror.store import write_behind
from dockmirror.store.bucket.bucket_stores import BucketContentStore, BucketDocumentStore, BucketTagStore
from dockmirror.store.local_store import LocalContentStore, LocalDocumentStore, LocalTagStore
from dockmirror.store.threads import RunInThread
from dockmirror.store.tiered.tiered_stores import TieredContentStore, TieredDocumentStore, TieredTagStore
from dockmirror.store.tiered.write_behind_queue import WriteBehind

from ...answering import now
from ..bucket.buckets import bucket
from ..bucket.test_bucket import Threads
from ..threads import inline

EPOCH = 1_700_000_000.0


class Machine:
    """A mirror's store; what it owes is given when the test says so.

    :param bucket_threads: ask the bucket instead of ``threads``.
    :ivar threads: those that ask the bucket, which may be down.
    """

    def __init__(
        self, root: Path, store: MemoryStore, clock: Clock, bucket_threads: RunInThread | None = None
    ) -> None:
        self.root, self.store, self.clock = root, store, clock
        self.threads = Threads()
        self.bucket = bucket(clock, store, bucket_threads or self.threads)
        self.used: list[Digest] = []
        far = BucketContentStore(self.bucket, clock)
        self.near = LocalContentStore(root, clock, inline)
        tags, documents = LocalTagStore(root, clock, inline), LocalDocumentStore(root, clock, inline)
        self.contents = TieredContentStore(self.near, far, self.owe, self.used.append)
        self.tags = TieredTagStore(tags, BucketTagStore(self.bucket, clock), self.owe, clock)
        self.far_documents = BucketDocumentStore(self.bucket)
        self.documents = TieredDocumentStore(documents, self.far_documents, self.owe, self.is_owed, clock)
        self.uploads = WriteBehind(root, far, tags, documents, clock, inline)

    async def owe(self, each: write_behind.PendingWrite) -> None:
        """Notes that the bucket is to be given it."""
        write_behind.enqueue(self.root, each, self.clock.seconds())

    async def is_owed(self, each: write_behind.PendingDocument) -> bool:
        """Whether that is noted."""
        return write_behind.is_queued(self.root, each)

    def give(self) -> int:
        """Gives what is owed; how much of it is left."""
        now(self.uploads.run())
        return len(write_behind.list_pending(self.root))
