"""Stores that treat errors of the disk as cache misses: a full or failing disk does not fail a pull."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from twisted.logger import Logger
from zope.interface import implementer

from ..interfaces import ContentKind, IContentStore, IDocumentStore, IStoredContent, ITagStore, TagEntry
from ..oci.digest import Digest
from ..oci.request import Repository, Tag

Result = TypeVar("Result")

_log = Logger()


async def _or(otherwise: Result, work: Awaitable[Result]) -> Result:
    try:
        return await work
    except OSError as error:
        _log.error("the store fails: {error}", error=str(error))
        return otherwise


@implementer(IContentStore)
class ErrorTolerantContentStore:
    """A content store that is empty while it cannot be read, and ignores failed writes, ``add`` excepted."""

    def __init__(self, contents: IContentStore) -> None:
        self._contents = contents

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        return await _or(None, self._contents.open(repository, digest, kind))

    async def holds(self, digest: Digest) -> bool:
        return await _or(False, self._contents.holds(digest))

    async def peek(self, digest: Digest) -> IStoredContent | None:
        return await _or(None, self._contents.peek(digest))

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        return await _or(False, self._contents.link(repository, digest, kind))

    async def add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> bool:
        """Raise errors, as the caller must know whether the content is stored."""
        return await self._contents.add(repository, digest, kind, data)

    async def unlink(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        await _or(None, self._contents.unlink(repository, digest, kind))


@implementer(ITagStore)
class ErrorTolerantTagStore:
    """A tag store that ignores failures."""

    def __init__(self, tags: ITagStore) -> None:
        self._tags = tags

    async def get(self, repository: Repository, tag: Tag) -> TagEntry | None:
        return await _or(None, self._tags.get(repository, tag))

    async def put(self, repository: Repository, tag: Tag, digest: Digest, age: float = 0.0) -> None:
        await _or(None, self._tags.put(repository, tag, digest, age))

    async def forget(self, repository: Repository, tag: Tag) -> None:
        await _or(None, self._tags.forget(repository, tag))

    async def forget_named(self, repository: Repository, digest: Digest) -> None:
        await _or(None, self._tags.forget_named(repository, digest))


@implementer(IDocumentStore)
class ErrorTolerantDocumentStore:
    """A document store that ignores failures."""

    def __init__(self, documents: IDocumentStore) -> None:
        self._documents = documents

    async def read(self, name: str) -> bytes | None:
        return await _or(None, self._documents.read(name))

    async def write(self, name: str, data: bytes) -> None:
        await _or(None, self._documents.write(name, data))
