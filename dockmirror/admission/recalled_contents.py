"""A store without its recalled contents."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..interfaces import ContentKind, IContentStore, IStoredContent
from ..oci.digest import Digest
from ..oci.reference import Repository
from .recalls import Recalls


@implementer(IContentStore)
class RecalledContentFilter:
    """Hides recalled contents, and neither stores nor links any, so that no pull brings them back.

    :param current: returns the recalls in force.
    """

    def __init__(self, contents: IContentStore, current: Callable[[], Recalls], clock: IReactorTime) -> None:
        self._contents = contents
        self._current = current
        self._clock = clock

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        return None if self._is_recalled(digest) else await self._contents.open(repository, digest, kind)

    async def holds(self, digest: Digest) -> bool:
        return not self._is_recalled(digest) and await self._contents.holds(digest)

    async def peek(self, digest: Digest) -> IStoredContent | None:
        return None if self._is_recalled(digest) else await self._contents.peek(digest)

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        return not self._is_recalled(digest) and await self._contents.link(repository, digest, kind)

    async def add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> None:
        """:raises OSError: also if the content is recalled."""
        if self._is_recalled(digest):
            raise OSError(f"{digest} is recalled")
        await self._contents.add(repository, digest, kind, data)

    async def unlink(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        await self._contents.unlink(repository, digest, kind)

    def _is_recalled(self, digest: Digest) -> bool:
        return self._current().find_blob(digest, self._clock.seconds()) is not None
