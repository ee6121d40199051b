"""Contents on this machine's disk, and in a bucket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, TypeVar

from zope.interface import implementer

from ...body.in_memory import collect
from ...concurrency.single_flight import SingleFlight
from ...interfaces import ContentKind, IBucketBlob, IContentStore, IStoredContent
from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.ranges import ContentRange
from ...oci.reference import Repository
from ..write_behind import PendingContent, PendingWrite

T = TypeVar("T")
Owe = Callable[[PendingWrite], Awaitable[None]]
"""Notes what the bucket is to be given."""


class LinkKnowledge(Protocol):
    """Contents in a bucket, of which it is remembered what they are linked to."""

    def knows(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        """Whether the repository is known to have the content there."""


async def _or(otherwise: T, asked: Awaitable[T]) -> T:
    """What is far is not there while the bucket fails, which tells of it once."""
    try:
        return await asked
    except OSError:
        return otherwise


@implementer(IContentStore)
class TieredContentStore:
    """What is near is served from there, and the bucket is asked nothing; a far manifest is brought near.

    A far blob is an ``IBucketBlob``, for whoever knows how to fetch it only once.  That the bucket
    is to be given something is noted before that has its name here: who is killed then has forgotten nothing.

    :param far: an ``IContents``, too; what it opens holds nothing, and is given to all who open it at once.
    :param used: is told of each use.
    """

    def __init__(
        self,
        near: IContentStore,
        far: IContentStore,
        known: LinkKnowledge,
        owe: Owe,
        used: Callable[[Digest], None],
    ) -> None:
        self._near = near
        self._far = far
        self._known = known
        self._owe = owe
        self._used = used
        self._look_ups: SingleFlight[tuple[Repository, Digest, ContentKind], IStoredContent | None] = (
            SingleFlight()
        )

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        """See ``IContentStore``."""
        key = repository, digest, kind
        opened = await self._near.open(*key)
        if opened is None:
            far = await self._look_ups.get(key, lambda: self._open_far(*key))
            opened = await self._near.open(*key) or far
        if opened is not None:
            self._used(digest)
        return opened

    async def holds(self, digest: Digest) -> bool:
        """See ``IContentStore``."""
        return await self._near.holds(digest) or await _or(False, self._far.holds(digest))

    async def peek(self, digest: Digest) -> IStoredContent | None:
        """See ``IContentStore``."""
        return await self._near.peek(digest) or await _or(None, self._far.peek(digest))

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        """See ``IContentStore``."""
        if await self._near.holds(digest):
            if not self._known.knows(repository, digest, kind):
                await self._owe(PendingContent(repository, digest, kind))
            if await self._near.link(repository, digest, kind):
                return True
        return await _or(False, self._far.link(repository, digest, kind))

    async def add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> None:
        """See ``IContentStore``."""
        await self._owe(PendingContent(repository, digest, kind))
        await self._near.add(repository, digest, kind, data)
        self._used(digest)

    async def unlink(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        """See ``IContentStore``; where the bucket fails its link stays."""
        await self._near.unlink(repository, digest, kind)
        await _or(None, self._far.unlink(repository, digest, kind))

    async def _open_far(
        self, repository: Repository, digest: Digest, kind: ContentKind
    ) -> IStoredContent | None:
        """Open what is far, unless it has just come near; None for that.

        What comes in one piece is kept near, unless the disk takes nothing.  Of what another repository has
        near only the link is missing.
        """
        near = await self._near.open(repository, digest, kind)
        if near is not None:
            near.close()
            return None
        far = await _or(None, self._far.open(repository, digest, kind))
        if IBucketBlob.providedBy(far):
            await self._near.link(repository, digest, kind)
        elif far is not None:
            whole = [ContentRange(0, far.size - 1, far.size)] if far.size else []
            data = await collect(far.body(Descriptor(size=far.size), whole), far.size)
            with suppress(OSError):
                await self._near.add(repository, digest, kind, data)
        return far
