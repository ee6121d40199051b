"""A store that takes nothing is one that has nothing: the upstream is asked, and its answer passed on.

A full disk, or one that fails, costs the cache and not the pull.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from twisted.logger import Logger
from zope.interface import implementer

from ..interfaces import IContents, IDocuments, IOpened, ITags, Kind, Tagged
from ..oci.digest import Digest
from ..oci.reference import Repository, Tag

Result = TypeVar("Result")

_log = Logger()


async def _or(otherwise: Result, work: Awaitable[Result]) -> Result:
    try:
        return await work
    except OSError as error:
        _log.error("the store fails: {error}", error=str(error))
        return otherwise


@implementer(IContents)
class LenientContents:
    """Contents of which none is held while they cannot be read, and none is linked while that fails."""

    def __init__(self, contents: IContents) -> None:
        self._contents = contents

    async def open(self, repository: Repository, digest: Digest, kind: Kind) -> IOpened | None:
        """See ``IContents``."""
        return await _or(None, self._contents.open(repository, digest, kind))

    async def holds(self, digest: Digest) -> bool:
        """See ``IContents``."""
        return await _or(False, self._contents.holds(digest))

    async def peek(self, digest: Digest) -> IOpened | None:
        """See ``IContents``."""
        return await _or(None, self._contents.peek(digest))

    async def link(self, repository: Repository, digest: Digest, kind: Kind) -> bool:
        """See ``IContents``."""
        return await _or(False, self._contents.link(repository, digest, kind))

    async def add(self, repository: Repository, digest: Digest, kind: Kind, data: bytes) -> None:
        """See ``IContents``; who asks must know whether it is kept."""
        await self._contents.add(repository, digest, kind, data)

    async def unlink(self, repository: Repository, digest: Digest, kind: Kind) -> None:
        """See ``IContents``."""
        await _or(None, self._contents.unlink(repository, digest, kind))


@implementer(ITags)
class LenientTags:
    """Tags that stay what they are while they cannot be written."""

    def __init__(self, tags: ITags) -> None:
        self._tags = tags

    async def get(self, repository: Repository, tag: Tag) -> Tagged | None:
        """See ``ITags``."""
        return await _or(None, self._tags.get(repository, tag))

    async def put(self, repository: Repository, tag: Tag, digest: Digest) -> None:
        """See ``ITags``."""
        await _or(None, self._tags.put(repository, tag, digest))

    async def forget(self, repository: Repository, tag: Tag) -> None:
        """See ``ITags``."""
        await _or(None, self._tags.forget(repository, tag))

    async def forget_named(self, repository: Repository, digest: Digest) -> None:
        """See ``ITags``."""
        await _or(None, self._tags.forget_named(repository, digest))


@implementer(IDocuments)
class LenientDocuments:
    """Documents that stay what they are while they cannot be written."""

    def __init__(self, documents: IDocuments) -> None:
        self._documents = documents

    async def read(self, name: str) -> bytes | None:
        """See ``IDocuments``."""
        return await _or(None, self._documents.read(name))

    async def write(self, name: str, data: bytes) -> None:
        """See ``IDocuments``."""
        await _or(None, self._documents.write(name, data))
