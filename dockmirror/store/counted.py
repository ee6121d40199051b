"""Contents whose bytes are counted as they are added."""

from __future__ import annotations

from collections.abc import Callable

from zope.interface import implementer

from ..interfaces import IContents, IOpened, Kind
from ..oci.digest import Digest
from ..oci.reference import Repository


@implementer(IContents)
class Counted:
    """Tells ``grown`` how many bytes have been added."""

    def __init__(self, contents: IContents, grown: Callable[[int], None]) -> None:
        self._contents = contents
        self._grown = grown

    async def open(self, repository: Repository, digest: Digest, kind: Kind) -> IOpened | None:
        """See ``IContents``."""
        return await self._contents.open(repository, digest, kind)

    async def holds(self, digest: Digest) -> bool:
        """See ``IContents``."""
        return await self._contents.holds(digest)

    async def peek(self, digest: Digest) -> IOpened | None:
        """See ``IContents``."""
        return await self._contents.peek(digest)

    async def link(self, repository: Repository, digest: Digest, kind: Kind) -> bool:
        """See ``IContents``."""
        return await self._contents.link(repository, digest, kind)

    async def add(self, repository: Repository, digest: Digest, kind: Kind, data: bytes) -> None:
        """See ``IContents``."""
        await self._contents.add(repository, digest, kind, data)
        self._grown(len(data))

    async def unlink(self, repository: Repository, digest: Digest, kind: Kind) -> None:
        """See ``IContents``."""
        await self._contents.unlink(repository, digest, kind)
