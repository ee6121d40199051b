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

from ...interfaces import IContents, IDocuments, ITags
from ...oci.digest import Digest
from .. import owed
from ..documents import LocalDocuments
from ..local import LocalContents
from ..objects.address import Address
from ..objects.aging import DAY, Aging
from ..objects.bucket import Bucket
from ..objects.contents import ObjectContents
from ..objects.documents import ObjectDocuments
from ..objects.tags import ObjectTags
from ..objects.uses import Uses
from ..tags import LocalTags
from ..threads import InThread, pooled
from .cleaning import Cleaning
from .contents import TieredContents
from .documents import TieredDocuments
from .tags import TieredTags
from .uploads import Uploads

THREADS = 16
"""Threads that wait for the bucket."""
LIFETIME = 300.0
"""Seconds for which an address holds that a client is sent to."""


@frozen
class Tiers:
    """Everything that a mirror keeps, near and far."""

    contents: IContents
    tags: ITags
    documents: IDocuments
    service: MultiService
    bucket: Bucket
    uploads: Uploads

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


def tiers(
    root: Path, address: Address, redirect: bool, days: int | None, reactor: Any, in_thread: InThread
) -> Tiers:
    """The store in that directory, in front of the one in the bucket.

    :param redirect: whether clients are sent to the bucket for what is not near and public.
    :param days: after how many what nobody uses is deleted there; never where it is None.
    :param in_thread: runs what blocks on the directory's files.
    """
    threads = _Threads()
    bucket = Bucket(str(address), address.connect, reactor, pooled(reactor, threads.pool))
    far = ObjectContents(bucket, reactor, LIFETIME if redirect else None)
    near, near_tags = LocalContents(root, reactor, in_thread), LocalTags(root, reactor, in_thread)
    near_documents = LocalDocuments(root, reactor, in_thread)
    uploads = Uploads(root, bucket, far, near_tags, near_documents, reactor, in_thread)
    service = MultiService()
    threads.setServiceParent(service)
    uploads.setServiceParent(service)
    used: Callable[[Digest], None] = _nobody
    if days is not None:
        uses = Uses(bucket, reactor)
        Cleaning(uses, Aging(bucket, uses, reactor, days * DAY), reactor).setServiceParent(service)
        used = uses.note

    async def owe(each: owed.Owed) -> None:
        await in_thread(partial(owed.put, root, each, reactor.seconds()))

    async def is_owed(each: owed.OwedDocument) -> bool:
        return await in_thread(partial(owed.is_put, root, each))

    return Tiers(
        TieredContents(near, far, far, owe, used),
        TieredTags(near_tags, near_tags, ObjectTags(bucket, reactor), owe, reactor),
        TieredDocuments(near_documents, ObjectDocuments(bucket), owe, is_owed, reactor),
        service,
        bucket,
        uploads,
    )


class _Threads(Service):
    """Threads that are left behind at the end: one may hang in a bucket that does not answer."""

    def __init__(self) -> None:
        self.pool = ThreadPool(0, THREADS, "bucket")
        self.pool.threadFactory = partial(threading.Thread, daemon=True)  # type: ignore[assignment]

    def startService(self) -> None:
        super().startService()
        self.pool.start()


def _nobody(_: Digest) -> None:
    """Nobody wants to know what is used."""
