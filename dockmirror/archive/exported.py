"""Images of a registry as an archive that is sent while it is made."""

from __future__ import annotations

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from ..content.held import collect
from ..interfaces import IContent, IRegistry
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import ManifestInvalid, ManifestUnknown, Unavailable
from ..oci.manifest import Child, Manifest
from ..oci.media import EVERYTHING
from ..oci.platform import Platform
from ..oci.ranges import Range
from ..oci.reference import Reference, Repository, Tag
from ..oci.request import Blob, Request
from ..oci.request import Manifest as ManifestOf
from .images import Packed, archive_of
from .plan import Piece, Plan, Segment

MEDIA_TYPE = "application/x-tar"
_LIMIT = 4 * 1024 * 1024
_MOST = 1000
"""Manifests of an image; what has more is no image that anybody would load."""


class Exports:
    """Archives of what a registry gives to everybody.

    :param registry: asked without credentials, by names that begin with a registry's.
    """

    def __init__(self, registry: IRegistry) -> None:
        self._registry = registry

    async def plan(self, repository: Repository, reference: Reference, platform: Platform | None) -> Plan:
        """All of an image: what its archive consists of, and how long it is.

        :param platform: of an image for several platforms, only this one.
        :raises RegistryError: as the registry refuses; when the image is none, or not for that platform.
        """
        root, data = await self._manifest(repository, reference)
        if platform is not None:
            root, data = await self._chosen(repository, root, data, platform)
        manifests = {root: data}
        blobs: dict[Digest, int] = {}
        await self._gather(repository, data, manifests, blobs)
        tag = reference.name if isinstance(reference, Tag) else ""
        name = f"{repository}{':' if tag else '@'}{reference}"
        return archive_of([Packed(name, tag, root, manifests, blobs)])

    def content(self, repository: Repository, plan: Plan, start: int, stop: int) -> IContent:
        """The archive from ``start`` up to before ``stop``; blobs are fetched while it is delivered."""
        whole = frozenset(piece for piece in plan.pieces if isinstance(piece, Segment))
        return _Archive(self._registry, repository, tuple(plan.part(start, stop)), whole, stop - start)

    async def _manifest(self, repository: Repository, reference: Reference) -> tuple[Digest, bytes]:
        answer = await self._registry.fetch(Request(ManifestOf(repository, reference), accept=EVERYTHING))
        digest = answer.content.descriptor.digest
        data = await collect(answer.content, _LIMIT)
        return digest or Digest.of(data), data

    async def _chosen(
        self, repository: Repository, root: Digest, data: bytes, platform: Platform
    ) -> tuple[Digest, bytes]:
        manifest = _parsed(data)
        if not manifest.children:
            return root, data
        fitting = [child for child in manifest.children if child.platform and platform.admits(child.platform)]
        if not fitting:
            there = ", ".join(str(c.platform) for c in manifest.children if c.platform and c.platform.is_real)
            raise ManifestUnknown(f"this image is not made for {platform}, but for {there}")
        child = min(fitting, key=lambda each: each.platform != platform)
        return await self._manifest(repository, _digest(child))

    async def _gather(
        self, repository: Repository, data: bytes, manifests: dict[Digest, bytes], blobs: dict[Digest, int]
    ) -> None:
        manifest = _parsed(data)
        for blob in manifest.blobs:
            if blob.digest is None or blob.size is None:
                raise ManifestInvalid("the manifest does not tell the size of what it refers to", status=502)
            blobs[blob.digest] = blob.size
        for child in manifest.children:
            digest = _digest(child)
            if digest in manifests:
                continue
            if len(manifests) >= _MOST:
                raise ManifestInvalid("the image has too many manifests", status=502)
            manifests[digest] = (await self._manifest(repository, digest))[1]
            await self._gather(repository, manifests[digest], manifests, blobs)


def _parsed(data: bytes) -> Manifest:
    manifest = Manifest.parse(data)
    if manifest is None:
        raise ManifestInvalid("this is no manifest of an image", status=502)
    return manifest


def _digest(child: Child) -> Digest:
    digest = child.descriptor.digest
    if digest is None:
        raise ManifestInvalid("the index does not tell a digest", status=502)
    return digest


@implementer(IContent)
@frozen
class _Archive:
    """Pieces one after another; where a content fails the archive is cut off.

    :ivar whole: the pieces that are all of a content.
    """

    registry: IRegistry
    repository: Repository
    pieces: tuple[Piece, ...]
    whole: frozenset[Segment]
    size: int

    @property
    def descriptor(self) -> Descriptor:
        """See ``IContent``."""
        return Descriptor(MEDIA_TYPE, None, self.size)

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IContent``."""
        return Deferred.fromCoroutine(self._deliver(consumer))

    def discard(self) -> None:
        """See ``IContent``; nothing has been opened."""

    async def _deliver(self, consumer: IConsumer) -> None:
        for piece in self.pieces:
            if isinstance(piece, bytes):
                consumer.write(piece)
            else:
                await (await self._opened(piece)).deliver(consumer)

    async def _opened(self, segment: Segment) -> IContent:
        last = segment.offset + segment.size - 1
        part = None if segment in self.whole else Range.since(segment.offset, last)
        answer = await self.registry.fetch(Request(Blob(self.repository, segment.digest), range=part))
        if answer.content.descriptor.size != segment.size:
            answer.content.discard()
            raise Unavailable("what the manifest refers to is of another size than it says")
        return answer.content
