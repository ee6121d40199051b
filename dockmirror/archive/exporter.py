"""Export a registry's image as an archive that is sent while its blobs are fetched."""

from __future__ import annotations

from typing import Any

from attrs import define, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from ..body.bodies import collect
from ..interfaces import IBody, IRegistry
from ..oci.digest import Descriptor, Digest
from ..oci.errors import ManifestInvalid, ManifestUnknown, SizeInvalid, TooManyRequests, Unavailable
from ..oci.header_fields import Range
from ..oci.manifest import IndexEntry, ManifestDocument, Platform
from ..oci.media import EVERYTHING
from ..oci.request import Blob, Reference, RegistryRequest, Repository, Tag
from ..oci.request import Manifest as ManifestOf
from .archive_plan import ArchivePlan, ContentSlice, PackedImage, Piece, plan_archive

MEDIA_TYPE = "application/x-tar"
MAX_ARCHIVE_MEMORY = 32 * 1024 * 1024
"""Memory that one archive may take, in bytes: its manifests, and ``_PER_BLOB`` for each blob."""
MAX_TOTAL_MEMORY = 4 * MAX_ARCHIVE_MEMORY
"""Memory that all archives together may take, in bytes, without the small ones."""
UNCOUNTED_MEMORY = 256 * 1024
"""Memory up to which an archive is not counted, in bytes: large archives never block ordinary images."""
PIECE = 64 * 1024
"""Bytes of one write."""
_PER_BLOB = 1024
_LIMIT = 4 * 1024 * 1024
_MAX_MANIFESTS = 1000
"""The largest number of manifests in an image."""
_RETRY_AFTER = "60"


@implementer(IBody, IPushProducer)
class PacedBytes:
    """A body of bytes in memory, of which no more is written than the consumer takes.

    The delivery ends when the consumer would take more, so that a body which follows need not wait.
    """

    def __init__(self, data: bytes) -> None:
        self.descriptor = Descriptor(size=len(data))
        self._data = data
        self._position = 0
        self._paused = False
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] = Deferred(lambda _: self._unregister())

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        self._consumer = consumer
        consumer.registerProducer(self, True)
        self._write()
        return self._done

    def discard(self) -> None:
        pass

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._write()

    def stopProducing(self) -> None:
        self._finish(Failure(Unavailable("the consumer has gone")))

    def _write(self) -> None:
        while self._consumer is not None and not self._paused:
            if self._position >= len(self._data):
                self._finish(None)
                return
            first, self._position = self._position, self._position + PIECE
            self._consumer.write(self._data[first : self._position])

    def _finish(self, outcome: Failure | None) -> None:
        if self._consumer is not None:
            self._unregister()
            self._done.callback(outcome)

    def _unregister(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.unregisterProducer()


class ArchiveExporter:
    """Makes archives of images that a registry gives to everybody.

    An archive keeps its manifests in memory from the first one that is read until the archive was sent.

    :param registry: receives requests without credentials, for names that begin with a registry's name.
    :param max_memory: replaces ``MAX_ARCHIVE_MEMORY``.
    :param max_total: replaces ``MAX_TOTAL_MEMORY``.
    """

    def __init__(
        self, registry: IRegistry, max_memory: int = MAX_ARCHIVE_MEMORY, max_total: int = MAX_TOTAL_MEMORY
    ) -> None:
        self._registry = registry
        self._limit = max_memory
        self._pool = _MemoryPool(max_total)

    async def archive(
        self, repository: Repository, reference: Reference, platform: Platform | None
    ) -> ExportedArchive:
        """Return the archive of an image; the caller closes it, or delivers or discards a part of it.

        :param platform: selects one image of a multi-platform image.
        :raises SizeInvalid: when the image's manifests are too large.
        :raises TooManyRequests: when other archives take the memory that this one needs.
        :raises RegistryError: as the registry refuses; also for an invalid image or a missing platform.
        """
        memory = _Memory(self._limit, self._pool)
        try:
            plan = await _ArchivePlanner(self._registry, repository, memory).plan(reference, platform)
        except BaseException:
            memory.release()
            raise
        return ExportedArchive(self._registry, repository, plan, memory)


class ExportedArchive:
    """An archive of an image whose blobs are not fetched yet.

    :ivar plan: the archive's pieces and length.
    """

    def __init__(
        self, registry: IRegistry, repository: Repository, plan: ArchivePlan, memory: _Memory
    ) -> None:
        self.plan = plan
        self._registry = registry
        self._repository = repository
        self._memory = memory

    def body(self, start: int, stop: int) -> IBody:
        """Return the archive from ``start`` up to, but not including, ``stop``; delivery fetches the blobs.

        Delivering or discarding the body closes the archive.
        """
        complete = frozenset(piece for piece in self.plan.pieces if isinstance(piece, ContentSlice))
        pieces = tuple(self.plan.part(start, stop))
        return _ArchiveBody(self._registry, self._repository, pieces, complete, stop - start, self._memory)

    def close(self) -> None:
        """Release the archive's memory; idempotent."""
        self._memory.release()


@define
class _MemoryPool:
    """The memory that is left for all archives."""

    left: int


class _Memory:
    """The memory that one archive takes."""

    def __init__(self, max_memory: int, pool: _MemoryPool) -> None:
        self._limit = max_memory
        self._pool = pool
        self._used = 0

    def take(self, size: int) -> None:
        """Reserve more memory.

        :raises SizeInvalid: when one archive would take too much.
        :raises TooManyRequests: when not enough memory is left.
        """
        used = self._used + size
        if used > self._limit:
            raise SizeInvalid(
                f"this image is too large to be exported: its manifests take more than {self._limit} bytes,"
                f" with {_PER_BLOB} bytes for each blob; try a single platform",
                status=413,
            )
        counted = _counted_size(used) - _counted_size(self._used)
        if counted > self._pool.left:
            raise TooManyRequests(
                "other exports use all the memory for exports; try again in a minute",
                retry_after=_RETRY_AFTER,
            )
        self._pool.left -= counted
        self._used = used

    def release(self) -> None:
        """Release all memory; idempotent."""
        self._pool.left += _counted_size(self._used)
        self._used = 0


def _counted_size(used: int) -> int:
    return used if used > UNCOUNTED_MEMORY else 0


class _ArchivePlanner:
    """Reads the manifests of an image and plans its archive."""

    def __init__(self, registry: IRegistry, repository: Repository, memory: _Memory) -> None:
        self._registry = registry
        self._repository = repository
        self._memory = memory
        self._manifests: dict[Digest, bytes] = {}
        self._blobs: dict[Digest, int] = {}

    async def plan(self, reference: Reference, platform: Platform | None) -> ArchivePlan:
        root, data = await self._fetch_manifest(reference)
        if platform is not None:
            root, data = await self._select_platform(root, data, platform)
        self._manifests[root] = data
        await self._read_manifests(data)
        tag = reference.name if isinstance(reference, Tag) else ""
        name = f"{self._repository}:{tag}" if tag else f"{self._repository}@{root}"
        return plan_archive([PackedImage(name, tag, root, self._manifests, self._blobs)])

    async def _fetch_manifest(self, reference: Reference) -> tuple[Digest, bytes]:
        request = RegistryRequest(ManifestOf(self._repository, reference), accept=EVERYTHING)
        content = (await self._registry.fetch(request)).body
        data = await collect(content, _LIMIT)
        self._memory.take(len(data))
        return content.descriptor.digest or Digest.of(data), data

    async def _select_platform(self, root: Digest, data: bytes, platform: Platform) -> tuple[Digest, bytes]:
        manifest = _parse(data)
        if not manifest.children:
            return root, data
        matching = [
            child for child in manifest.children if child.platform and platform.matches(child.platform)
        ]
        if not matching:
            available = ", ".join(
                str(c.platform) for c in manifest.children if c.platform and c.platform.is_real
            )
            raise ManifestUnknown(f"this image has no platform {platform}; it has {available}")
        child = min(matching, key=lambda each: each.platform != platform)
        return await self._fetch_manifest(_digest(child))

    async def _read_manifests(self, data: bytes) -> None:
        """Read all manifests below this one, and record all blobs."""
        unread = self._record(data)
        while unread:
            digest = unread.pop()
            if digest in self._manifests:
                continue
            if len(self._manifests) >= _MAX_MANIFESTS:
                raise ManifestInvalid("the image has too many manifests", status=502)
            self._manifests[digest] = (await self._fetch_manifest(digest))[1]
            unread += self._record(self._manifests[digest])

    def _record(self, data: bytes) -> list[Digest]:
        """Return the manifests that this one refers to, the first one last, and record its blobs."""
        manifest = _parse(data)
        for blob in manifest.blobs:
            if blob.digest is None or blob.size is None:
                raise ManifestInvalid("the manifest lacks the digest or the size of a blob", status=502)
            if blob.digest not in self._blobs:
                self._memory.take(_PER_BLOB)
            self._blobs[blob.digest] = blob.size
        return [_digest(child) for child in reversed(manifest.children)]


def _parse(data: bytes) -> ManifestDocument:
    manifest = ManifestDocument.parse(data)
    if manifest is None:
        raise ManifestInvalid("invalid image manifest", status=502)
    return manifest


def _digest(child: IndexEntry) -> Digest:
    digest = child.descriptor.digest
    if digest is None:
        raise ManifestInvalid("the index lacks a manifest's digest", status=502)
    return digest


@implementer(IBody)
@frozen
class _ArchiveBody:
    """Delivers pieces of an archive one after another; a failing content cuts the archive off.

    :ivar complete: the slices that are complete contents.
    """

    registry: IRegistry
    repository: Repository
    pieces: tuple[Piece, ...]
    complete: frozenset[ContentSlice]
    size: int
    memory: _Memory

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(MEDIA_TYPE, None, self.size)

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        return Deferred.fromCoroutine(self._deliver(consumer)).addBoth(self._release)

    def discard(self) -> None:
        self.memory.release()

    def _release(self, outcome: object) -> Any:
        self.memory.release()
        return outcome

    async def _deliver(self, consumer: IConsumer) -> None:
        for piece in self.pieces:
            content = PacedBytes(piece) if isinstance(piece, bytes) else await self._open(piece)
            await content.deliver(consumer)

    async def _open(self, content_slice: ContentSlice) -> IBody:
        last = content_slice.offset + content_slice.size - 1
        part = None if content_slice in self.complete else Range.starting_at(content_slice.offset, last)
        answer = await self.registry.fetch(
            RegistryRequest(Blob(self.repository, content_slice.digest), range=part)
        )
        if answer.body.descriptor.size != content_slice.size:
            answer.body.discard()
            raise Unavailable("a blob's size differs from the size in the manifest")
        return answer.body
