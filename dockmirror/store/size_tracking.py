"""A content store that reports how much it grows."""

from __future__ import annotations

from collections.abc import Callable

from zope.interface import implementer

from ..interfaces import ContentKind, IContentStore, IStoredContent
from ..oci.digest import Digest
from ..oci.reference import Repository


@implementer(IContentStore)
class SizeTrackingStore:
    """Wraps a store and calls ``on_added`` with the number of bytes added."""

    def __init__(self, contents: IContentStore, on_added: Callable[[int], None]) -> None:
        self._contents = contents
        self._on_added = on_added

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        return await self._contents.open(repository, digest, kind)

    async def holds(self, digest: Digest) -> bool:
        return await self._contents.holds(digest)

    async def peek(self, digest: Digest) -> IStoredContent | None:
        """See ``IContentStore``."""
        return await self._contents.peek(digest)

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        return await self._contents.link(repository, digest, kind)

    async def add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> None:
        await self._contents.add(repository, digest, kind, data)
        self._on_added(len(data))

    async def unlink(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        await self._contents.unlink(repository, digest, kind)
