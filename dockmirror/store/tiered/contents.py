"""Contents on this machine's disk, and in a bucket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, TypeVar

from zope.interface import implementer

from ...content.held import collect
from ...interfaces import IContents, IDistant, IOpened, Kind
from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.ranges import ContentRange
from ...oci.reference import Repository
from ..opened import OpenedBytes
from ..owed import Owed, OwedContent

T = TypeVar("T")
Owe = Callable[[Owed], Awaitable[None]]
"""Notes what the bucket is to be given."""


class Far(Protocol):
    """Contents in a bucket, of which it is remembered what they are linked to."""

    def knows(self, repository: Repository, digest: Digest, kind: Kind) -> bool:
        """Whether the repository is known to have the content there."""


async def _or(otherwise: T, asked: Awaitable[T]) -> T:
    """What is far is not there while the bucket fails, which tells of it once."""
    try:
        return await asked
    except OSError:
        return otherwise


@implementer(IContents)
class TieredContents:
    """What is near is served from there, and the bucket is asked nothing; what is small is brought near.

    What is large and far is an ``IDistant``, for whoever knows how to fetch it only once.  That the bucket
    is to be given something is noted before that has its name here: who is killed then has forgotten nothing.

    :param far: an ``IContents``, too.
    :param used: is told of each use.
    """

    def __init__(
        self, near: IContents, far: IContents, known: Far, owe: Owe, used: Callable[[Digest], None]
    ) -> None:
        self._near = near
        self._far = far
        self._known = known
        self._owe = owe
        self._used = used

    async def open(self, repository: Repository, digest: Digest, kind: Kind) -> IOpened | None:
        """See ``IContents``."""
        opened = await self._near.open(repository, digest, kind)
        if opened is None:
            opened = await _or(None, self._far.open(repository, digest, kind))
            if opened is not None:
                opened = await self._brought(repository, digest, kind, opened)
        if opened is not None:
            self._used(digest)
        return opened

    async def holds(self, digest: Digest) -> bool:
        """See ``IContents``."""
        return await self._near.holds(digest) or await _or(False, self._far.holds(digest))

    async def link(self, repository: Repository, digest: Digest, kind: Kind) -> bool:
        """See ``IContents``."""
        if await self._near.holds(digest):
            if not self._known.knows(repository, digest, kind):
                await self._owe(OwedContent(repository, digest, kind))
            if await self._near.link(repository, digest, kind):
                return True
        return await _or(False, self._far.link(repository, digest, kind))

    async def add(self, repository: Repository, digest: Digest, kind: Kind, data: bytes) -> None:
        """See ``IContents``."""
        await self._owe(OwedContent(repository, digest, kind))
        await self._near.add(repository, digest, kind, data)
        self._used(digest)

    async def _brought(self, repository: Repository, digest: Digest, kind: Kind, opened: IOpened) -> IOpened:
        """What is small is kept near, unless the disk takes nothing; what another repository has is near."""
        if IDistant.providedBy(opened):
            near = None
            if await self._near.link(repository, digest, kind):
                near = await self._near.open(repository, digest, kind)
            if near is None:
                return opened
            opened.close()
            return near
        whole = [ContentRange(0, opened.size - 1, opened.size)] if opened.size else []
        data = await collect(opened.content(Descriptor(size=opened.size), whole), opened.size)
        with suppress(OSError):
            await self._near.add(repository, digest, kind, data)
        return OpenedBytes(data)
