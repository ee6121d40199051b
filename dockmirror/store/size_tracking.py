"""Contents whose bytes are counted as they are added."""

from __future__ import annotations

from collections.abc import Callable

from zope.interface import implementer

from ..interfaces import ContentKind, IContentStore, IStoredContent
from ..oci.digest import Digest
from ..oci.reference import Repository


@implementer(IContentStore)
class SizeTrackingStore:
    """Tells ``grown`` how many bytes have been added."""

    def __init__(self, contents: IContentStore, grown: Callable[[int], None]) -> None:
        self._contents = contents
        self._grown = grown

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        """See ``IContentStore``."""
        return await self._contents.open(repository, digest, kind)

    async def holds(self, digest: Digest) -> bool:
        """See ``IContentStore``."""
        return await self._contents.holds(digest)

    async def peek(self, digest: Digest) -> IStoredContent | None:
        """See ``IContentStore``."""
        return await self._contents.peek(digest)

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        """See ``IContentStore``."""
        return await self._contents.link(repository, digest, kind)

    async def add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> None:
        """See ``IContentStore``."""
        await self._contents.add(repository, digest, kind, data)
        self._grown(len(data))

    async def unlink(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        """See ``IContentStore``."""
        await self._contents.unlink(repository, digest, kind)
