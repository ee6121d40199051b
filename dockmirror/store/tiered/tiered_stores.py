"""Contents on this machine's disk, and in a bucket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ...body.in_memory import collect
from ...concurrency.single_flight import SingleFlight
from ...concurrency.ttl_cache import TTLCache
from ...interfaces import (
    ContentKind,
    IBucketBlob,
    IContentStore,
    IDocumentStore,
    IStoredContent,
    ITagStore,
    TagEntry,
)
from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.ranges import ContentRange
from ...oci.reference import Repository, Tag
from ..write_behind import PendingContent, PendingDocument, PendingTag, PendingWrite

T = TypeVar("T")
Enqueue = Callable[[PendingWrite], Awaitable[None]]
"""Notes what the bucket is to be given."""


class KnownLinks(Protocol):
    """Contents in a bucket, of which it is remembered what they are linked to."""

    def is_known_link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
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
        known: KnownLinks,
        owe: Enqueue,
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
        return await self._near.peek(digest) or await _or(None, self._far.peek(digest))

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        """See ``IContentStore``."""
        if await self._near.holds(digest):
            if not self._known.is_known_link(repository, digest, kind):
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


BUCKET_CHECK_INTERVAL = 60.0
"""Seconds since it was confirmed after which another mirror may know better, and between two questions."""
REUPLOAD_INTERVAL = 3600.0
"""Seconds after which the bucket is told of a confirmation that changes nothing."""
_MOST = 100_000


class TagConfirmations(Protocol):
    """Tags of which it is known when somebody else has confirmed them."""

    async def record(self, repository: Repository, tag: Tag, tagged: TagEntry) -> None:
        """Notes what the tag was confirmed to name, and when."""


@implementer(ITagStore)
class TieredTagStore:
    """The one that was confirmed last counts; the bucket is asked only of what was not confirmed lately."""

    def __init__(
        self, near: ITagStore, noted: TagConfirmations, far: ITagStore, owe: Enqueue, clock: IReactorTime
    ) -> None:
        self._near = near
        self._noted = noted
        self._far = far
        self._owe = owe
        self._clock = clock
        self._asked: TTLCache[tuple[Repository, Tag], bool] = TTLCache(clock, _MOST)
        self._look_ups: SingleFlight[tuple[Repository, Tag], TagEntry | None] = SingleFlight()
        self._given: TTLCache[tuple[Repository, Tag], Digest] = TTLCache(clock, _MOST)

    async def get(self, repository: Repository, tag: Tag) -> TagEntry | None:
        """See ``ITagStore``."""
        key = repository, tag
        asked = self._asked.get(key)  # before the disk is read, which has what came of it then
        near = await self._near.get(repository, tag)
        if asked or (
            near is not None and 0 <= self._clock.seconds() - near.confirmed < BUCKET_CHECK_INTERVAL
        ):
            return near
        return await self._look_ups.get(key, lambda: self._latest(repository, tag))

    async def put(self, repository: Repository, tag: Tag, digest: Digest) -> None:
        """See ``ITagStore``."""
        await self._near.put(repository, tag, digest)
        if self._given.get((repository, tag)) != digest:
            await self._owe(PendingTag(repository, tag))
            self._given.put((repository, tag), digest, REUPLOAD_INTERVAL)

    async def forget(self, repository: Repository, tag: Tag) -> None:
        """See ``ITagStore``; where the bucket does not, it will be asked to again when the tag is."""
        self._given.drop((repository, tag))
        await self._near.forget(repository, tag)
        with suppress(OSError):
            await self._far.forget(repository, tag)

    async def forget_named(self, repository: Repository, digest: Digest) -> None:
        """See ``ITagStore`` and ``forget``."""
        await self._near.forget_named(repository, digest)
        with suppress(OSError):
            await self._far.forget_named(repository, digest)

    async def _latest(self, repository: Repository, tag: Tag) -> TagEntry | None:
        """Return what was confirmed last, here or far, after noting it here."""
        if self._asked.get((repository, tag)):
            return await self._near.get(repository, tag)
        try:
            far = await self._far.get(repository, tag)
        except OSError:  # of which the bucket tells
            return await self._near.get(repository, tag)
        near = await self._near.get(repository, tag)
        if far is not None and (near is None or near.confirmed < far.confirmed):
            await self._noted.record(repository, tag, far)
            near = far
        self._asked.put((repository, tag), True, BUCKET_CHECK_INTERVAL)
        return near


ABSENT_TTL = 60.0
"""Seconds for which it is believed that the bucket has no such document."""
REFRESH_TTL = 600.0
"""Seconds after which it is seen what other mirrors have written; whoever reads does not wait for it."""


@implementer(IDocumentStore)
class TieredDocumentStore:
    """What this mirror has written itself counts, until the bucket has it; then what was written last."""

    def __init__(
        self,
        near: IDocumentStore,
        far: IDocumentStore,
        owe: Enqueue,
        is_owed: Callable[[PendingDocument], Awaitable[bool]],
        clock: IReactorTime,
    ) -> None:
        self._near = near
        self._far = far
        self._owe = owe
        self._is_owed = is_owed
        self._asked: TTLCache[str, bool] = TTLCache(clock, _MOST)
        self._look_ups: SingleFlight[str, bytes | None] = SingleFlight()

    async def read(self, name: str) -> bytes | None:
        """See ``IDocumentStore``."""
        asked = self._asked.get(name)  # before the disk is read, which has what came of it then
        near = await self._near.read(name)
        if asked:
            return near
        looking = Deferred.fromCoroutine(self._look_ups.get(name, lambda: self._latest(name)))
        if near is None:
            return await looking
        looking.addErrback(lambda _: None)
        return near

    async def write(self, name: str, data: bytes) -> None:
        """See ``IDocumentStore``.

        It is owed before, so that nobody brings the bucket's in its place, and after, for it may have been
        given as it was.
        """
        self._asked.put(name, True, REFRESH_TTL)
        await self._owe(PendingDocument(name))
        await self._near.write(name, data)
        await self._owe(PendingDocument(name))

    async def _latest(self, name: str) -> bytes | None:
        """Return what is far, after writing it here, unless what is here is owed to the bucket."""
        if self._asked.get(name):
            return await self._near.read(name)
        try:
            far = await self._far.read(name)
        except OSError:  # of which the bucket tells
            return await self._near.read(name)
        if far is not None and not await self._is_owed(PendingDocument(name)):
            await self._near.write(name, far)
        near = await self._near.read(name)
        self._asked.put(name, True, ABSENT_TTL if near is None else REFRESH_TTL)
        return far if near is None else near
