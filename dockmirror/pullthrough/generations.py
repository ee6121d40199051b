"""Changes of registries through the mirror, as each of its processes sees them at once.

**Marks.**  A repository's mark is another one after each change.  The mirror reads it before it asks the
upstream and afterwards: where it is another one, the answer may be from before the change, and is not kept.

**Deletions.**  What the upstream has deleted is unlinked in the store, and a document says so, a tombstone.
It belongs to the registry: it counts for every upstream that is this registry, whether it is written to or
not, and nothing is linked there while it stands.  It is lifted when the upstream gives the content again to
a question, or takes it from a client, that came after the deletion.

**Doubts.**  Where nobody knows what has come of a write (no answer, 5xx, the client has left), nothing is
taken away.  Tags and lists of the repository that were confirmed before are asked about, and so is the
content that was to be deleted; what is held stands in while the upstream does not say.  There are at most
64 such documents for each registry, and one for each content that is held: nobody can fill the disk by
writes that fail.
"""

from __future__ import annotations

import secrets
from hashlib import sha256

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..concurrency.caching import SingleFlight, TTLCache
from ..interfaces import ContentKind, IContentStore, IDocumentStore, IStoredContent
from ..oci.digest import Digest
from ..oci.reference import Repository
from .error_tolerant_store import ErrorTolerantDocumentStore

LOOKED_UP = 600.0
"""Seconds after which a mirror that only reads from a registry sees that others have begun to write to it."""
UNLINKED = 600.0
"""Seconds after which a link is removed again to what was deleted by another mirror."""
DOUBTS = 64
"""Documents of doubts for each registry."""
_MOST = 10_000
_GONE, _DOUBTED = b"gone", b"doubted"


def _registry(place: Repository) -> str:
    return place.name.partition("/")[0]


@frozen
class Tombstone:
    """A content that was deleted, or may have been; of two deletions each has another ``generation``."""

    generation: bytes

    @property
    def is_certain(self) -> bool:
        """The upstream has said that it was deleted."""
        return self.generation.startswith(_GONE)


class Tombstones:
    """The deletions of all registries in one store."""

    def __init__(self, documents: IDocumentStore, clock: IReactorTime) -> None:
        self._documents: IDocumentStore = ErrorTolerantDocumentStore(documents)
        self._expected: set[str] = set()
        self._begun: set[str] = set()
        self._looked_up: TTLCache[str, bool] = TTLCache(clock, _MOST)
        self._look_ups: SingleFlight[str, None] = SingleFlight()

    def expect(self, registry: str) -> None:
        """Look deletions of this registry up from now on, as others may delete there at any time."""
        self._expected.add(registry)

    async def may_be_of(self, registry: str) -> bool:
        """Return whether anything of this registry may have been deleted through the mirror, ever."""
        if registry not in self._expected and self._looked_up.get(registry) is None:
            await self._look_ups.get(registry, lambda: self._look_up(registry))
        return registry in self._expected

    async def _look_up(self, registry: str) -> None:
        if await self._documents.read(f"written/{registry}") is not None:
            self._expected.add(registry)
        self._looked_up.put(registry, True, LOOKED_UP)

    async def begin(self, registry: str) -> None:
        """Note that this registry is written to, for mirrors that only read from it."""
        self._expected.add(registry)
        if registry not in self._begun:
            await self._documents.write(f"written/{registry}", b"")
            self._begun.add(registry)

    async def find(self, place: Repository, digest: Digest, kind: ContentKind) -> Tombstone | None:
        """Return the deletion that stands; None where there was none, or it was lifted."""
        if not await self.may_be_of(_registry(place)):
            return None
        generation = await self._documents.read(deletion_document(place, digest, kind))
        if not generation:
            return None
        if await self._documents.read(f"back/{_name(place, digest, kind)}") == generation:
            return None
        return Tombstone(generation)

    async def record(
        self, place: Repository, digest: Digest, kind: ContentKind, certain: bool = True
    ) -> None:
        """Note a deletion, or that there may have been one."""
        generation = b"%s %s" % (_GONE if certain else _DOUBTED, secrets.token_hex(8).encode())
        await self._documents.write(deletion_document(place, digest, kind), generation)

    async def lift(
        self, place: Repository, digest: Digest, kind: ContentKind, deletion: Tombstone | None
    ) -> None:
        """Note that the content is there again since this deletion; a later one stands."""
        if deletion is not None:
            await self._documents.write(f"back/{_name(place, digest, kind)}", deletion.generation)


def deletion_document(place: Repository, digest: Digest, kind: ContentKind) -> str:
    """Return the name of the document that says that a content was deleted."""
    return f"gone/{_name(place, digest, kind)}"


def _name(place: Repository, digest: Digest, kind: ContentKind) -> str:
    return f"{kind.value}/{place}@{digest}"


class ReadOnlyGenerations:
    """A registry that nobody changes through the mirror.

    :param registry: its name in the store.
    """

    def __init__(self, registry: str) -> None:
        self._registry = registry

    def place(self, repository: Repository) -> Repository:
        """The store's name of a repository."""
        return Repository(f"{self._registry}/{repository}")

    async def generation(self, place: Repository) -> bytes:
        """Another one after each change of what that repository has."""
        return b""

    async def doubted(self, place: Repository) -> float:
        """Return the time of the last write there of which nobody knows what has come, or 0."""
        return 0.0

    async def deletion(self, place: Repository, digest: Digest, kind: ContentKind) -> Tombstone | None:
        """Return the deletion of a content that stands."""
        return None

    async def given(self, place: Repository, mark: bytes, digest: Digest, kind: ContentKind) -> bool:
        """Note that the upstream has this content, as it has said to a question.

        :param mark: the repository's, from before the question.
        :returns: whether the repository has not been changed since.
        """
        return True


class Generations(ReadOnlyGenerations):
    """A registry that is changed through the mirror; documents say so, which nobody holds in memory."""

    def __init__(
        self, registry: str, documents: IDocumentStore, deletions: Tombstones, clock: IReactorTime
    ) -> None:
        super().__init__(registry)
        self._documents: IDocumentStore = ErrorTolerantDocumentStore(documents)
        self.deletions = deletions
        self._clock = clock

    async def generation(self, place: Repository) -> bytes:
        """See ``ReadOnlyGenerations``."""
        if not await self.deletions.may_be_of(self._registry):
            return b""
        changed = await self._documents.read(f"changed/{place}") or b""
        doubted = await self._documents.read(self._doubts(place))
        return changed if doubted is None else b"%s|%s" % (changed, doubted)

    async def note(self, place: Repository) -> bytes:
        """Note that something was changed there; return the new mark."""
        await self.deletions.begin(self._registry)
        await self._documents.write(f"changed/{place}", secrets.token_hex(8).encode())
        return await self.generation(place)

    async def doubt(self, place: Repository) -> None:
        """Note that nobody knows what has come of a write there."""
        doubt = f"{self._clock.seconds()!r} {secrets.token_hex(8)}"
        await self._documents.write(self._doubts(place), doubt.encode())

    async def doubted(self, place: Repository) -> float:
        """See ``ReadOnlyGenerations``; doubts of a few other repositories count as well."""
        if not await self.deletions.may_be_of(self._registry):
            return 0.0
        doubt = (await self._documents.read(self._doubts(place)) or b"").partition(b" ")[0]
        try:
            return float(doubt or b"0")
        except ValueError:
            return 0.0

    async def deletion(self, place: Repository, digest: Digest, kind: ContentKind) -> Tombstone | None:
        """See ``ReadOnlyGenerations``."""
        return await self.deletions.find(place, digest, kind)

    async def given(self, place: Repository, mark: bytes, digest: Digest, kind: ContentKind) -> bool:
        """See ``ReadOnlyGenerations``."""
        deletion = await self.deletions.find(place, digest, kind)
        if await self.generation(place) != mark:
            return False
        await self.deletions.lift(place, digest, kind, deletion)
        return True

    def _doubts(self, place: Repository) -> str:
        return f"doubts/{self._registry}/{sha256(place.name.encode()).digest()[0] % DOUBTS}"


def without_doubts(mark: str) -> str:
    """Return the part of a mark that only certain changes replace."""
    return mark.partition("|")[0]


@implementer(IContentStore)
class TombstoneFilter:
    """Contents of which none is held, and none linked, where it was deleted.

    Where a deletion by another mirror is met the link is removed here, too.
    """

    def __init__(self, contents: IContentStore, deletions: Tombstones, clock: IReactorTime) -> None:
        self._contents = contents
        self._deletions = deletions
        self._unlinked: TTLCache[tuple[Repository, Digest, ContentKind], bool] = TTLCache(clock, _MOST)

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        """See ``IContentStore``."""
        if await self._is_gone(repository, digest, kind):
            if self._unlinked.get((repository, digest, kind)) is None:
                self._unlinked.put((repository, digest, kind), True, UNLINKED)
                await self._contents.unlink(repository, digest, kind)
            return None
        return await self._contents.open(repository, digest, kind)

    async def holds(self, digest: Digest) -> bool:
        """See ``IContentStore``."""
        return await self._contents.holds(digest)

    async def peek(self, digest: Digest) -> IStoredContent | None:
        """See ``IContentStore``."""
        return await self._contents.peek(digest)

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        """See ``IContentStore``; False also where it was deleted."""
        if await self._is_gone(repository, digest, kind):
            return False
        linked = await self._contents.link(repository, digest, kind)
        return linked and await self._stays(repository, digest, kind)

    async def add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> None:
        """See ``IContentStore``.

        :raises OSError: also where it was deleted.
        """
        if not await self._is_gone(repository, digest, kind):
            await self._contents.add(repository, digest, kind, data)
            if await self._stays(repository, digest, kind):
                return
        raise OSError(f"{digest} was deleted from {repository}")

    async def unlink(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        """See ``IContentStore``."""
        await self._contents.unlink(repository, digest, kind)

    async def _is_gone(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        deletion = await self._deletions.find(repository, digest, kind)
        return deletion is not None and deletion.is_certain

    async def _stays(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        """Return whether it was not deleted while it was linked; else it is unlinked."""
        if not await self._is_gone(repository, digest, kind):
            return True
        await self._contents.unlink(repository, digest, kind)
        return False
