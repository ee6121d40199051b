"""Two machines, each with its disk, in front of one bucket in memory."""

from __future__ import annotations

from pathlib import Path

from obstore.store import MemoryStore
from twisted.internet.task import Clock

from dockmirror.oci.digest import Digest
from dockmirror.store import owed
from dockmirror.store.documents import LocalDocuments
from dockmirror.store.local import LocalContents
from dockmirror.store.objects.contents import ObjectContents
from dockmirror.store.objects.documents import ObjectDocuments
from dockmirror.store.objects.tags import ObjectTags
from dockmirror.store.tags import LocalTags
from dockmirror.store.threads import InThread
from dockmirror.store.tiered.contents import TieredContents
from dockmirror.store.tiered.documents import TieredDocuments
from dockmirror.store.tiered.tags import TieredTags
from dockmirror.store.tiered.uploads import Uploads

from ...answering import now
from ..objects.buckets import bucket
from ..objects.test_bucket import Threads
from ..threads import inline

EPOCH = 1_700_000_000.0


class Machine:
    """A mirror's store; what it owes is given when the test says so.

    :param bucket_threads: ask the bucket instead of ``threads``.
    :ivar threads: those that ask the bucket, which may be down.
    """

    def __init__(
        self, root: Path, store: MemoryStore, clock: Clock, bucket_threads: InThread | None = None
    ) -> None:
        self.root, self.store, self.clock = root, store, clock
        self.threads = Threads()
        self.bucket = bucket(clock, store, bucket_threads or self.threads)
        self.used: list[Digest] = []
        far = ObjectContents(self.bucket, clock)
        self.near = LocalContents(root, clock, inline)
        tags, documents = LocalTags(root, clock, inline), LocalDocuments(root, clock, inline)
        self.contents = TieredContents(self.near, far, far, self.owe, self.used.append)
        self.tags = TieredTags(tags, tags, ObjectTags(self.bucket, clock), self.owe, clock)
        self.far_documents = ObjectDocuments(self.bucket)
        self.documents = TieredDocuments(documents, self.far_documents, self.owe, self.is_owed, clock)
        self.uploads = Uploads(root, self.bucket, far, tags, documents, clock, inline)

    async def owe(self, each: owed.Owed) -> None:
        """Notes that the bucket is to be given it."""
        owed.put(self.root, each, self.clock.seconds())

    async def is_owed(self, each: owed.OwedDocument) -> bool:
        """Whether that is noted."""
        return owed.is_put(self.root, each)

    def give(self) -> int:
        """Gives what is owed; how much of it is left."""
        now(self.uploads.look())
        return len(owed.waiting(self.root))
