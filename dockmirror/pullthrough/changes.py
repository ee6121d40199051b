"""What was changed through the mirror, as each of its processes sees it at once.

Whoever asks the upstream looks at a repository's mark before and after: where it is another one, what was
answered may be from before a change, and is not kept.
"""

from __future__ import annotations

import secrets

from zope.interface import implementer

from ..interfaces import IContents, IDocuments, IOpened, Kind
from ..oci.digest import Digest
from ..oci.reference import Repository
from .lenient import LenientDocuments

_GONE = b"gone"


class Unchanged:
    """Of a registry that nobody changes through the mirror.

    :param registry: its name in the store.
    """

    def __init__(self, registry: str) -> None:
        self._registry = registry

    def place(self, repository: Repository) -> Repository:
        """The store's name of a repository."""
        return Repository(f"{self._registry}/{repository}")

    async def mark(self, place: Repository) -> bytes:
        """Another one after each change of what that repository has."""
        return b""

    async def is_gone(self, place: Repository, digest: Digest, kind: Kind) -> bool:
        """Whether it was deleted there, and has not come back."""
        return False


class Changes(Unchanged):
    """Of a registry that is changed through the mirror; documents that nobody remembers say so."""

    def __init__(self, registry: str, documents: IDocuments) -> None:
        super().__init__(registry)
        self._documents: IDocuments = LenientDocuments(documents)

    async def mark(self, place: Repository) -> bytes:
        """See ``Unchanged``."""
        return await self._documents.read(f"changed/{place}") or b""

    async def note(self, place: Repository) -> None:
        """Something was changed there."""
        await self._documents.write(f"changed/{place}", secrets.token_hex(8).encode())

    async def is_gone(self, place: Repository, digest: Digest, kind: Kind) -> bool:
        """See ``Unchanged``."""
        return await self._documents.read(_name(place, digest, kind)) == _GONE

    async def deleted(self, place: Repository, digest: Digest, kind: Kind) -> None:
        """It is not to be had there any more."""
        await self.note(place)
        await self._documents.write(_name(place, digest, kind), _GONE)

    async def came_back(self, place: Repository, digest: Digest, kind: Kind) -> None:
        """It is there, as far as the upstream says."""
        if await self.is_gone(place, digest, kind):
            await self._documents.write(_name(place, digest, kind), b"")


def _name(place: Repository, digest: Digest, kind: Kind) -> str:
    return f"gone/{kind.value}/{place}@{digest}"


@implementer(IContents)
class Present:
    """Contents of which none is held where it was deleted, whoever still remembers it there."""

    def __init__(self, contents: IContents, changes: Changes) -> None:
        self._contents = contents
        self._changes = changes

    async def open(self, repository: Repository, digest: Digest, kind: Kind) -> IOpened | None:
        """See ``IContents``."""
        if await self._changes.is_gone(repository, digest, kind):
            return None
        return await self._contents.open(repository, digest, kind)

    async def holds(self, digest: Digest) -> bool:
        """See ``IContents``."""
        return await self._contents.holds(digest)

    async def link(self, repository: Repository, digest: Digest, kind: Kind) -> bool:
        """See ``IContents``."""
        linked = await self._contents.link(repository, digest, kind)
        if linked:
            await self._changes.came_back(repository, digest, kind)
        return linked

    async def add(self, repository: Repository, digest: Digest, kind: Kind, data: bytes) -> None:
        """See ``IContents``."""
        await self._contents.add(repository, digest, kind, data)
        await self._changes.came_back(repository, digest, kind)
