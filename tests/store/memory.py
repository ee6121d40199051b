"""A store in memory for tests, which keeps the contract of the real ones."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from dockmirror.interfaces import (
    ContentKind,
    IContentStore,
    IDocumentStore,
    IStoredContent,
    ITagStore,
    TagEntry,
)
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Repository, Tag
from dockmirror.store.file_body import StoredBytes


@implementer(IContentStore)
class MemoryContents:
    """Contents in a dictionary.

    :ivar held: the bytes, which a test may remove or replace.
    :ivar links: the repositories' links.
    """

    def __init__(self) -> None:
        self.held: dict[Digest, bytes] = {}
        self.links: set[tuple[Repository, Digest, ContentKind]] = set()

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        if (repository, digest, kind) not in self.links or digest not in self.held:
            return None
        return StoredBytes(self.held[digest])

    async def holds(self, digest: Digest) -> bool:
        return digest in self.held

    async def peek(self, digest: Digest) -> IStoredContent | None:
        return StoredBytes(self.held[digest]) if digest in self.held else None

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        if digest not in self.held:
            return False
        self.links.add((repository, digest, kind))
        return True

    async def add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> bool:
        self.held[digest] = data
        self.links.add((repository, digest, kind))
        return True

    async def unlink(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        self.links.discard((repository, digest, kind))


@implementer(ITagStore)
class MemoryTags:
    """Tags in a dictionary."""

    def __init__(self, clock: IReactorTime) -> None:
        self.tags: dict[tuple[Repository, Tag], TagEntry] = {}
        self._clock = clock

    async def get(self, repository: Repository, tag: Tag) -> TagEntry | None:
        return self.tags.get((repository, tag))

    async def put(self, repository: Repository, tag: Tag, digest: Digest, age: float = 0.0) -> None:
        self.tags[repository, tag] = TagEntry(digest, self._clock.seconds() - age)

    async def forget(self, repository: Repository, tag: Tag) -> None:
        self.tags.pop((repository, tag), None)

    async def forget_named(self, repository: Repository, digest: Digest) -> None:
        named = [key for key, tagged in self.tags.items() if (key[0], tagged.digest) == (repository, digest)]
        for key in named:
            del self.tags[key]


@implementer(IDocumentStore)
class MemoryDocuments:
    """Documents in a dictionary."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}

    async def read(self, name: str) -> bytes | None:
        return self.documents.get(name)

    async def write(self, name: str, data: bytes) -> None:
        self.documents[name] = data
