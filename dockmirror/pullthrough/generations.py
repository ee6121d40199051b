"""Writes to registries through the mirror, recorded so that all of its processes see them at once.

**Generations.**  A repository's generation changes with each write.  The mirror reads it before and after it
asks the upstream: if it has changed, the answer may be older than the write, and is not stored.

**Tombstones.**  When the upstream has deleted a content, the mirror unlinks it in the store and writes a
document, the tombstone.  It counts for every upstream that serves this registry, writable or not, and
nothing is linked there while it exists.  It is lifted when a request that came after the deletion shows that
the upstream has the content again: a client pushes it, or the upstream gives it.

**Doubts.**  If the outcome of a write is unknown (no answer, 5xx, the client has left), nothing is deleted.
Instead the upstream is asked about the content that was to be deleted, and about tags and lists of the
repository that were confirmed before; while the upstream is down, stored content is served stale.  There are
at most 64 such documents for each registry, and one for each stored content, so failing writes cannot fill
the disk.

**Overlaps.**  Of two writes at the same time nobody knows which one the upstream performed last.  Each leaves
a mark before it asks the upstream; the one that finds another mark afterwards records a doubt, and the other
one finds the doubt, or has ended before it.  There are at most 64 marks for each registry, too.
"""

from __future__ import annotations

import secrets
from hashlib import sha256

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..concurrency.coroutines import SingleFlight, TTLCache
from ..interfaces import ContentKind, IContentStore, IDocumentStore, IStoredContent
from ..oci.digest import Digest
from ..oci.request import Repository
from .error_tolerant_store import ErrorTolerantDocumentStore

LOOK_UP_TTL = 600.0
"""Seconds after which a mirror that only reads from a registry notices that others write to it."""
UNLINK_TTL = 600.0
"""Seconds after which the link to a content that another mirror deleted is removed again."""
MAX_DOUBTS = 64
"""Documents about doubts, and marks of writes, for each registry, at most."""
_MOST = 10_000
_GONE, _DOUBTED = b"gone", b"doubted"


def _registry(place: Repository) -> str:
    return place.name.partition("/")[0]


@frozen
class Tombstone:
    """A content that was deleted, or may have been; the document differs for each deletion."""

    document: bytes

    @property
    def is_certain(self) -> bool:
        """True if the upstream has confirmed the deletion."""
        return self.document.startswith(_GONE)


class Tombstones:
    """The tombstones of all registries in one store."""

    def __init__(self, documents: IDocumentStore, clock: IReactorTime) -> None:
        self._documents: IDocumentStore = ErrorTolerantDocumentStore(documents)
        self._expected: set[str] = set()
        self._marked: set[str] = set()
        self._recent_look_ups: TTLCache[str, bool] = TTLCache(clock, _MOST)
        self._look_ups: SingleFlight[str, None] = SingleFlight()

    def expect(self, registry: str) -> None:
        """Look for tombstones of this registry from now on, as other processes may delete at any time."""
        self._expected.add(registry)

    async def may_exist(self, registry: str) -> bool:
        """Return whether the registry may have tombstones."""
        if registry not in self._expected and self._recent_look_ups.get(registry) is None:
            await self._look_ups.get(registry, lambda: self._look_up(registry))
        return registry in self._expected

    async def _look_up(self, registry: str) -> None:
        if await self._documents.read(f"written/{registry}") is not None:
            self._expected.add(registry)
        self._recent_look_ups.put(registry, True, LOOK_UP_TTL)

    async def mark_written(self, registry: str) -> None:
        """Record that this registry is written to, for mirrors that only read from it."""
        self._expected.add(registry)
        if registry not in self._marked:
            await self._documents.write(f"written/{registry}", b"")
            self._marked.add(registry)

    async def find(self, place: Repository, digest: Digest, kind: ContentKind) -> Tombstone | None:
        """Return the tombstone, or None if there is none or it was lifted."""
        if not await self.may_exist(_registry(place)):
            return None
        generation = await self._documents.read(tombstone_document(place, digest, kind))
        if not generation:
            return None
        if await self._documents.read(f"back/{_name(place, digest, kind)}") == generation:
            return None
        return Tombstone(generation)

    async def put(self, place: Repository, digest: Digest, kind: ContentKind, certain: bool = True) -> None:
        """Write a tombstone; an uncertain one if the outcome of the deletion is unknown."""
        generation = b"%s %s" % (_GONE if certain else _DOUBTED, secrets.token_hex(8).encode())
        await self._documents.write(tombstone_document(place, digest, kind), generation)

    async def lift(
        self, place: Repository, digest: Digest, kind: ContentKind, tombstone: Tombstone | None
    ) -> None:
        """Record that the upstream has the content again since this deletion; a later tombstone stays."""
        if tombstone is not None:
            await self._documents.write(f"back/{_name(place, digest, kind)}", tombstone.document)


def tombstone_document(place: Repository, digest: Digest, kind: ContentKind) -> str:
    """Return the name of a tombstone's document."""
    return f"gone/{_name(place, digest, kind)}"


def _name(place: Repository, digest: Digest, kind: ContentKind) -> str:
    return f"{kind.value}/{place}@{digest}"


class Generations:
    """The generations of one registry's repositories; documents record them, and memory caches nothing.

    :param registry: its name in the store.
    """

    def __init__(
        self, registry: str, documents: IDocumentStore, tombstones: Tombstones, clock: IReactorTime
    ) -> None:
        self._registry = registry
        self._documents: IDocumentStore = ErrorTolerantDocumentStore(documents)
        self.tombstones = tombstones
        self._clock = clock

    def store_name(self, repository: Repository) -> Repository:
        """Return the store's name of a repository."""
        return Repository(f"{self._registry}/{repository.name}")

    async def generation(self, place: Repository) -> bytes:
        """Return a value that changes with each write to the repository."""
        if not await self.tombstones.may_exist(self._registry):
            return b""
        changed = await self._documents.read(f"changed/{place}") or b""
        document = await self._documents.read(self._document("doubts", place))
        return changed if document is None else b"%s|%s" % (changed, document)

    async def may_be_written(self) -> bool:
        """Return whether clients may write to the registry through a mirror of this store."""
        return await self.tombstones.may_exist(self._registry)

    async def begin_write(self, place: Repository) -> bytes:
        """Mark the beginning of a write, and return the mark."""
        mark = secrets.token_hex(8).encode()
        await self._documents.write(self._document("writing", place), mark)
        return mark

    async def is_last_write(self, place: Repository, mark: bytes) -> bool:
        """Return whether no write has begun after that one; a few other repositories share the marks."""
        return await self._documents.read(self._document("writing", place)) == mark

    async def advance(self, place: Repository, before: bytes = b"") -> bytes:
        """Begin a new generation of the repository, and return it.

        :param before: an earlier generation, since which no doubt is expected.
        """
        await self.tombstones.mark_written(self._registry)
        changed = secrets.token_hex(8).encode()
        await self._documents.write(f"changed/{place}", changed)
        _, bar, doubt = before.partition(b"|")
        return changed + bar + doubt

    async def record_doubt(self, place: Repository) -> None:
        """Record that the outcome of a write to the repository is unknown."""
        doubt = f"{self._clock.seconds()!r} {secrets.token_hex(8)}"
        await self._documents.write(self._document("doubts", place), doubt.encode())

    async def last_doubt(self, place: Repository) -> float:
        """Return the time of the last write whose outcome is unknown, or 0.

        A few other repositories share it.
        """
        if not await self.tombstones.may_exist(self._registry):
            return 0.0
        doubt = (await self._documents.read(self._document("doubts", place)) or b"").partition(b" ")[0]
        try:
            return float(doubt or b"0")
        except ValueError:
            return 0.0

    async def tombstone(self, place: Repository, digest: Digest, kind: ContentKind) -> Tombstone | None:
        """Return the tombstone of a content, or None."""
        return await self.tombstones.find(place, digest, kind)

    async def confirm(self, place: Repository, generation: bytes, digest: Digest, kind: ContentKind) -> bool:
        """Record that the upstream has this content.

        :param generation: the repository's, from before the upstream was asked.
        :returns: False if the repository has been written to since.
        """
        tombstone = await self.tombstones.find(place, digest, kind)
        if await self.generation(place) != generation:
            return False
        await self.tombstones.lift(place, digest, kind, tombstone)
        return True

    def _document(self, folder: str, place: Repository) -> str:
        return f"{folder}/{self._registry}/{sha256(place.name.encode()).digest()[0] % MAX_DOUBTS}"


def without_doubts(generation: str) -> str:
    """Return the part of a generation that only writes with a known outcome change."""
    return generation.partition("|")[0]


@implementer(IContentStore)
class TombstoneFilter:
    """Hides contents that have a tombstone, and links none of them.

    The link to a content that another mirror has deleted is removed here, too.
    """

    def __init__(self, contents: IContentStore, tombstones: Tombstones, clock: IReactorTime) -> None:
        self._contents = contents
        self._tombstones = tombstones
        self._recent: TTLCache[tuple[Repository, Digest, ContentKind], bool] = TTLCache(clock, _MOST)

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        if await self._is_gone(repository, digest, kind):
            if self._recent.get((repository, digest, kind)) is None:
                self._recent.put((repository, digest, kind), True, UNLINK_TTL)
                await self._contents.unlink(repository, digest, kind)
            return None
        return await self._contents.open(repository, digest, kind)

    async def holds(self, digest: Digest) -> bool:
        return await self._contents.holds(digest)

    async def peek(self, digest: Digest) -> IStoredContent | None:
        return await self._contents.peek(digest)

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        """Link the content unless it was deleted."""
        if await self._is_gone(repository, digest, kind):
            return False
        linked = await self._contents.link(repository, digest, kind)
        return linked and await self._is_still_linked(repository, digest, kind)

    async def add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> bool:
        if await self._is_gone(repository, digest, kind):
            return False
        added = await self._contents.add(repository, digest, kind, data)
        return added and await self._is_still_linked(repository, digest, kind)

    async def unlink(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        await self._contents.unlink(repository, digest, kind)

    async def _is_gone(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        tombstone = await self._tombstones.find(repository, digest, kind)
        return tombstone is not None and tombstone.is_certain

    async def _is_still_linked(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        """Unlink a content that was deleted while it was being linked; return whether it is still linked."""
        if not await self._is_gone(repository, digest, kind):
            return True
        await self._contents.unlink(repository, digest, kind)
        return False
