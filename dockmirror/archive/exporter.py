"""Images of a registry as an archive that is sent while it is made."""

from __future__ import annotations

from typing import Any

from attrs import define, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from ..body.in_memory import collect
from ..body.paced import PacedBytes
from ..interfaces import IBody, IRegistry
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import ManifestInvalid, ManifestUnknown, SizeInvalid, TooManyRequests, Unavailable
from ..oci.manifest import IndexEntry, ManifestDocument
from ..oci.media import EVERYTHING
from ..oci.platform import Platform
from ..oci.ranges import Range
from ..oci.reference import Reference, Repository, Tag
from ..oci.request import Blob, RegistryRequest
from ..oci.request import Manifest as ManifestOf
from .archive_plan import ArchivePlan, ContentSlice, Piece
from .images import PackedImage, archive_of

MEDIA_TYPE = "application/x-tar"
LARGEST = 32 * 1024 * 1024
"""Bytes of memory that one archive may take: its manifests, and ``_FILE`` for each blob."""
TOGETHER = 4 * LARGEST
"""Bytes of memory that all archives may take together, but for the small ones."""
SMALL = 256 * 1024
"""Bytes of memory up to which an archive is not counted: large ones take the room of no ordinary image."""
_FILE = 1024
_LIMIT = 4 * 1024 * 1024
_MOST = 1000
"""Manifests of an image; what has more is no image that anybody would load."""
_LATER = "60"


class ArchiveExporter:
    """Archives of what a registry gives to everybody.

    An archive keeps its manifests in memory from the first one that is read until all of it was sent.

    :param registry: asked without credentials, by names that begin with a registry's.
    :param largest: see ``LARGEST``.
    :param together: see ``TOGETHER``.
    """

    def __init__(self, registry: IRegistry, largest: int = LARGEST, together: int = TOGETHER) -> None:
        self._registry = registry
        self._largest = largest
        self._room = _Room(together)

    async def archive(
        self, repository: Repository, reference: Reference, platform: Platform | None
    ) -> Archive:
        """All of an image; the archive is to be closed, or a part of it delivered or discarded.

        :param platform: of an image for several platforms, only this one.
        :raises SizeInvalid: when the image's manifests are too large.
        :raises TooManyRequests: when other archives take the memory that this one needs.
        :raises RegistryError: as the registry refuses; when the image is none, or not for that platform.
        """
        memory = _Memory(self._largest, self._room)
        try:
            plan = await _Planning(self._registry, repository, memory).plan(reference, platform)
        except BaseException:
            memory.release()
            raise
        return Archive(self._registry, repository, plan, memory)


class Archive:
    """All of an image in a file, of which everything is known but the blobs.

    :ivar plan: what it consists of, and how long it is.
    """

    def __init__(
        self, registry: IRegistry, repository: Repository, plan: ArchivePlan, memory: _Memory
    ) -> None:
        self.plan = plan
        self._registry = registry
        self._repository = repository
        self._memory = memory

    def content(self, start: int, stop: int) -> IBody:
        """The archive from ``start`` up to before ``stop``; blobs are fetched while it is delivered.

        Delivered or discarded, it closes the archive.
        """
        whole = frozenset(piece for piece in self.plan.pieces if isinstance(piece, ContentSlice))
        pieces = tuple(self.plan.part(start, stop))
        return _Part(self._registry, self._repository, pieces, whole, stop - start, self._memory)

    def close(self) -> None:
        """Gives its memory to others; a second time changes nothing."""
        self._memory.release()


@define
class _Room:
    """Memory for all archives together."""

    left: int


class _Memory:
    """Memory that one archive takes."""

    def __init__(self, largest: int, room: _Room) -> None:
        self._largest = largest
        self._room = room
        self._taken = 0

    def take(self, size: int) -> None:
        """Takes more.

        :raises SizeInvalid: when that would be too much for one archive.
        :raises TooManyRequests: when there is not so much left.
        """
        taken = self._taken + size
        if taken > self._largest:
            raise SizeInvalid(
                f"this image is too large to be exported: its manifests have more than {self._largest} bytes,"
                f" each blob that they name counted as {_FILE}; a single platform of it may do",
                status=413,
            )
        counted = _counted(taken) - _counted(self._taken)
        if counted > self._room.left:
            raise TooManyRequests(
                "other exports take all the memory that there is for them; try again in a minute",
                retry_after=_LATER,
            )
        self._room.left -= counted
        self._taken = taken

    def release(self) -> None:
        """Gives all back; a second time changes nothing."""
        self._room.left += _counted(self._taken)
        self._taken = 0


def _counted(taken: int) -> int:
    return taken if taken > SMALL else 0


class _Planning:
    """Reads the manifests of an image, and finds out what its archive consists of."""

    def __init__(self, registry: IRegistry, repository: Repository, memory: _Memory) -> None:
        self._registry = registry
        self._repository = repository
        self._memory = memory
        self._manifests: dict[Digest, bytes] = {}
        self._blobs: dict[Digest, int] = {}

    async def plan(self, reference: Reference, platform: Platform | None) -> ArchivePlan:
        """See ``ArchiveExporter.archive``."""
        root, data = await self._manifest(reference)
        if platform is not None:
            root, data = await self._chosen(root, data, platform)
        self._manifests[root] = data
        await self._gather(data)
        tag = reference.name if isinstance(reference, Tag) else ""
        name = f"{self._repository}{':' if tag else '@'}{reference}"
        return archive_of([PackedImage(name, tag, root, self._manifests, self._blobs)])

    async def _manifest(self, reference: Reference) -> tuple[Digest, bytes]:
        request = RegistryRequest(ManifestOf(self._repository, reference), accept=EVERYTHING)
        content = (await self._registry.fetch(request)).body
        data = await collect(content, _LIMIT)
        self._memory.take(len(data))
        return content.descriptor.digest or Digest.of(data), data

    async def _chosen(self, root: Digest, data: bytes, platform: Platform) -> tuple[Digest, bytes]:
        manifest = _parsed(data)
        if not manifest.children:
            return root, data
        fitting = [
            child for child in manifest.children if child.platform and platform.matches(child.platform)
        ]
        if not fitting:
            there = ", ".join(str(c.platform) for c in manifest.children if c.platform and c.platform.is_real)
            raise ManifestUnknown(f"this image is not made for {platform}, but for {there}")
        child = min(fitting, key=lambda each: each.platform != platform)
        return await self._manifest(_digest(child))

    async def _gather(self, data: bytes) -> None:
        """Reads all manifests below this one, and finds all blobs."""
        unread = self._found(data)
        while unread:
            digest = unread.pop()
            if digest in self._manifests:
                continue
            if len(self._manifests) >= _MOST:
                raise ManifestInvalid("the image has too many manifests", status=502)
            self._manifests[digest] = (await self._manifest(digest))[1]
            unread += self._found(self._manifests[digest])

    def _found(self, data: bytes) -> list[Digest]:
        """The manifests that this one refers to, the first of them last; its blobs are noted."""
        manifest = _parsed(data)
        for blob in manifest.blobs:
            if blob.digest is None or blob.size is None:
                raise ManifestInvalid("the manifest does not tell the size of what it refers to", status=502)
            if blob.digest not in self._blobs:
                self._memory.take(_FILE)
            self._blobs[blob.digest] = blob.size
        return [_digest(child) for child in reversed(manifest.children)]


def _parsed(data: bytes) -> ManifestDocument:
    manifest = ManifestDocument.parse(data)
    if manifest is None:
        raise ManifestInvalid("this is no manifest of an image", status=502)
    return manifest


def _digest(child: IndexEntry) -> Digest:
    digest = child.descriptor.digest
    if digest is None:
        raise ManifestInvalid("the index does not tell a digest", status=502)
    return digest


@implementer(IBody)
@frozen
class _Part:
    """Pieces of an archive one after another; where a content fails the archive is cut off.

    :ivar whole: the pieces that are all of a content.
    """

    registry: IRegistry
    repository: Repository
    pieces: tuple[Piece, ...]
    whole: frozenset[ContentSlice]
    size: int
    memory: _Memory

    @property
    def descriptor(self) -> Descriptor:
        """See ``IBody``."""
        return Descriptor(MEDIA_TYPE, None, self.size)

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``."""
        return Deferred.fromCoroutine(self._deliver(consumer)).addBoth(self._released)

    def discard(self) -> None:
        """See ``IBody``; nothing has been opened."""
        self.memory.release()

    def _released(self, outcome: object) -> Any:
        self.memory.release()
        return outcome

    async def _deliver(self, consumer: IConsumer) -> None:
        for piece in self.pieces:
            content = PacedBytes(piece) if isinstance(piece, bytes) else await self._opened(piece)
            await content.deliver(consumer)

    async def _opened(self, segment: ContentSlice) -> IBody:
        last = segment.offset + segment.size - 1
        part = None if segment in self.whole else Range.starting_at(segment.offset, last)
        answer = await self.registry.fetch(RegistryRequest(Blob(self.repository, segment.digest), range=part))
        if answer.body.descriptor.size != segment.size:
            answer.body.discard()
            raise Unavailable("what the manifest refers to is of another size than it says")
        return answer.body
