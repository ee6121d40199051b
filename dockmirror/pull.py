"""Images pulled as a client pulls them, and thrown away: what is in between keeps them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore
from twisted.internet.interfaces import IConsumer, IProducer, IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from .body.in_memory import collect
from .interfaces import Answer, IRegistry
from .oci.descriptor import Descriptor
from .oci.digest import Digest
from .oci.errors import ManifestInvalid, ManifestUnknown, RegistryError
from .oci.manifest import IndexEntry, ManifestDocument
from .oci.media import EVERYTHING
from .oci.platform import Platform
from .oci.reference import Reference, Repository, Tag
from .oci.request import Blob, Referrers, RegistryRequest
from .oci.request import Manifest as Asked

MANIFEST_LIMIT = 4 * 1024 * 1024
HELD_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between two questions for what a mirror does not hold yet."""
Watch = Callable[[Descriptor], AbstractContextManager[Callable[[int], None]]]
"""Watches a blob that comes: what it gives is told the size of each piece."""


@contextmanager
def unwatched(_: Descriptor) -> Iterator[Callable[[int], None]]:
    """Nobody watches."""
    yield lambda _: None


@define
class PulledImage:
    """What came of an image.

    :ivar held: how many of its blobs were held already.
    :ivar fetched: how many were not, and ``bytes``, how many bytes these were.
    """

    manifests: int = 0
    held: int = 0
    fetched: int = 0
    bytes: int = 0


@frozen
class Wanted:
    """Which image, and how much of it.

    :ivar repository: as the registry that is asked names it.
    :ivar platforms: of an index only these; all where there are none.
    :ivar referrers: with what refers to it: signatures, attestations, and the like.
    """

    repository: Repository
    reference: Reference
    platforms: Collection[Platform] = ()
    referrers: bool = False

    def wants(self, child: IndexEntry) -> bool:
        """Whether this is for a platform that is wanted."""
        return not self.platforms or (
            child.platform is not None and any(each.matches(child.platform) for each in self.platforms)
        )


class Pull:
    """Pulls images through a registry that verifies what it gives.

    Blobs that the registry's ``CacheParts-Status`` says are held are not read again.

    :param jobs: how many blobs are read at a time.
    """

    def __init__(self, registry: IRegistry, jobs: int = 1, watch: Watch = unwatched) -> None:
        self._registry = registry
        self._places = DeferredSemaphore(jobs)
        self._watch = watch

    async def image(self, wanted: Wanted, pulled: PulledImage) -> Sequence[RegistryRequest]:
        """Pull an image, and count what comes; return what would ask for each part of it by digest.

        :raises RegistryError: when something of it is not to be had; its other blobs were pulled then.
        """
        seen: dict[Digest, ManifestDocument] = {}
        await self._manifest(wanted, wanted.reference, seen)
        pulled.manifests += len(seen)
        blobs = {blob.digest: blob for manifest in seen.values() for blob in manifest.blobs}
        pulling = [self._places.run(self._start, wanted.repository, blob, pulled) for blob in blobs.values()]
        for _, outcome in await DeferredList(pulling, consumeErrors=True):
            if isinstance(outcome, Failure):
                outcome.raiseException()
        targets: list[Asked | Blob] = [
            *(Asked(wanted.repository, digest) for digest in seen),
            *(Blob(wanted.repository, digest) for digest in blobs if digest),
        ]
        return [RegistryRequest(target, accept=EVERYTHING) for target in targets]

    def _start(self, repository: Repository, blob: Descriptor, pulled: PulledImage) -> Deferred[None]:
        return Deferred.fromCoroutine(self._blob(repository, blob, pulled))

    async def _manifest(
        self, wanted: Wanted, reference: Reference, seen: dict[Digest, ManifestDocument]
    ) -> None:
        """A manifest, and those below it."""
        if reference in seen:
            return
        asked = RegistryRequest(Asked(wanted.repository, reference), accept=EVERYTHING)
        data = await collect((await self._registry.fetch(asked)).body, MANIFEST_LIMIT)
        digest = reference if isinstance(reference, Digest) else Digest.of(data)
        manifest = ManifestDocument.parse(data)
        if manifest is None:
            raise ManifestInvalid(f"{digest} is no manifest of an image, or of a kind that is not known here")
        seen[digest] = manifest
        children = [child for child in manifest.children if wanted.wants(child)]
        if manifest.children and not children:
            raise ManifestUnknown(f"there is none for {', '.join(map(str, wanted.platforms))}")
        for child in children:
            if child.descriptor.digest is not None:
                await self._manifest(wanted, child.descriptor.digest, seen)
        if wanted.referrers:
            await self._referrers(evolve(wanted, platforms=()), digest, seen)

    async def _referrers(self, wanted: Wanted, subject: Digest, seen: dict[Digest, ManifestDocument]) -> None:
        """What refers to a manifest, by the API or, where the registry has none, by the tag schema.

        Source: OCI distribution specification, "Listing Referrers" and "Referrers Tag Schema".
        """
        tag = Tag(f"{subject.algorithm}-{subject.hex}")
        for target in (Referrers(wanted.repository, subject), Asked(wanted.repository, tag)):
            try:
                answer = await self._registry.fetch(RegistryRequest(target, accept=EVERYTHING))
            except RegistryError as error:
                if error.status != 404:
                    raise
                continue
            listed = ManifestDocument.parse(await collect(answer.body, MANIFEST_LIMIT))
            for child in listed.children if listed else ():
                if child.descriptor.digest is not None:
                    await self._manifest(wanted, child.descriptor.digest, seen)
            return

    async def _blob(self, repository: Repository, blob: Descriptor, pulled: PulledImage) -> None:
        assert blob.digest is not None
        asked = RegistryRequest(Blob(repository, blob.digest))
        if await is_held(self._registry, asked):
            pulled.held += 1
            return
        answer = await self._registry.fetch(asked)
        with self._watch(blob) as took:
            sink = _Sink(took)
            await answer.body.deliver(sink)
        pulled.fetched += 1
        pulled.bytes += sink.size


class HeldCheck:
    """Asks a mirror whether it holds what was pulled through it.

    A mirror puts a blob on its disk a moment after it has sent the last byte, so what is missing is asked
    for again for a while.

    :param jobs: how many questions are asked at a time.
    """

    def __init__(self, registry: IRegistry, clock: IReactorTime, jobs: int = 1) -> None:
        self._registry = registry
        self._clock = clock
        self._places = DeferredSemaphore(jobs)

    async def missing(self, asked: Collection[RegistryRequest]) -> list[RegistryRequest]:
        """Return those that the mirror does not answer from its cache."""
        for pause in (*HELD_PAUSES, None):
            asking = [self._places.run(self._start, each) for each in asked]
            hits = [hit for _, hit in await DeferredList(asking)]
            asked = [each for each, hit in zip(asked, hits, strict=True) if hit is not True]
            if not asked or pause is None:
                break
            await deferLater(self._clock, pause)
        return list(asked)

    def _start(self, asked: RegistryRequest) -> Deferred[bool]:
        return Deferred.fromCoroutine(is_held(self._registry, asked))


async def is_held(registry: IRegistry, asked: RegistryRequest) -> bool:
    """Return whether a mirror says that it would answer from its cache."""
    try:
        return is_hit(await registry.fetch(evolve(asked, head=True)))
    except RegistryError:  # of which a GET will tell, if it is of any importance
        return False


def is_hit(answer: Answer) -> bool:
    """Whether it says that it came from the cache (RFC 9211)."""
    told = dict(answer.headers).get("Cache-Status", "")
    return "hit" in [word.strip() for word in told.split(";")[1:]]


@implementer(IConsumer)
@define
class _Sink:
    """Throws away what is written."""

    _took: Callable[[int], None]
    size: int = field(default=0, init=False)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Everything is taken as it comes."""

    def unregisterProducer(self) -> None:
        """See ``registerProducer``."""

    def write(self, data: bytes) -> None:
        self.size += len(data)
        self._took(len(data))
