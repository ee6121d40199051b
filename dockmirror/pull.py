"""Pulls images and discards them, to warm the caches in between, and reads the lists that name them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore
from twisted.internet.interfaces import IConsumer, IProducer, IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from .body.bodies import collect
from .interfaces import IRegistry
from .oci.digest import Descriptor, Digest
from .oci.errors import Denied, ManifestInvalid, ManifestUnknown, RegistryError, Unreadable
from .oci.manifest import MANIFEST_LIMIT, IndexEntry, ManifestDocument, Platform
from .oci.media import EVERYTHING, artifact_tags
from .oci.request import Blob, Reference, Referrers, RegistryRequest, Repository, Tag, Tags
from .oci.request import Manifest as ManifestTarget

LIST_LIMIT = 16 * 1024 * 1024
"""Bytes of a page of a list."""
MAX_PAGES = 10_000
MAX_DEPTH = 16
"""Manifests on the way from an image to one that is pulled with it, at most."""
TAG_PAGES = 20
"""Pages of a repository's list of tags that are read for the artifacts of an image, at most."""
HELD_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between checks for content that a mirror does not hold yet."""
Watch = Callable[[Descriptor], AbstractContextManager[Callable[[int], None]]]
"""Reports the progress of a blob: its context is a function that is called with the size of each piece."""


async def read_names(
    registry: IRegistry, request: RegistryRequest, key: str, max_pages: int = MAX_PAGES
) -> list[str]:
    """Return the names on all pages of a list.

    :param key: the field of a page that has the names.
    :raises Unreadable: when a page is malformed, or there are too many of them.
    :raises RegistryError: when a page cannot be fetched.
    """
    names: dict[str, None] = {}
    for _ in range(max_pages):
        answer = await registry.fetch(request)
        page = _parse_names(await collect(answer.body, LIST_LIMIT), key)
        if page is None:
            raise Unreadable(f"the upstream's list of {key} cannot be read")
        is_new = any(name not in names for name in page)
        names.update(dict.fromkeys(page))
        if answer.next_page is None or not is_new:
            return list(names)
        following = tuple(pair for pair in answer.next_page if pair[0] != "ns")
        request = evolve(request, query=following)
    raise Unreadable(f"the upstream's list of {key} has more than {max_pages} pages")


def _parse_names(data: bytes, key: str) -> list[str] | None:
    try:
        names = json.loads(data)[key] or []
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


@contextmanager
def unwatched(_: Descriptor) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


@define
class PulledImage:
    """The outcome of a pull.

    :ivar held: how many blobs the mirror held already.
    :ivar fetched: how many blobs were fetched, and ``bytes``, their size together.
    """

    manifests: int = 0
    held: int = 0
    fetched: int = 0
    bytes: int = 0


@frozen
class Wanted:
    """An image to be pulled.

    :ivar repository: its name at the registry that is asked.
    :ivar platforms: the platforms of an index to pull; all if there are none.
    :ivar referrers: True to pull its referrers, too: signatures, attestations and the like.
    :ivar revalidate: True to have a mirror ask the upstream what the tag names, however fresh it is.
    :ivar tags: the tags of the repository among which artifacts are; None to have them listed.
    """

    repository: Repository
    reference: Reference
    platforms: Collection[Platform] = ()
    referrers: bool = False
    revalidate: bool = False
    tags: Collection[str] | None = None

    def has_tag(self, name: str) -> bool:
        """Return whether the repository may have a tag."""
        return self.tags is None or name in self.tags

    def wants(self, child: IndexEntry) -> bool:
        """Return whether the entry is for a wanted platform."""
        return not self.platforms or (
            child.platform is not None and any(each.matches(child.platform) for each in self.platforms)
        )


class ImagePuller:
    """Pulls images through a registry that verifies its contents.

    Blobs that the mirror holds, as its ``Cache-Status`` says, are not read again.

    :param jobs: how many blobs are read at a time.
    :param note: is given a sentence about each artifact that is refused.
    """

    def __init__(
        self,
        registry: IRegistry,
        jobs: int = 1,
        watch: Watch = unwatched,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._registry = registry
        self._slots = DeferredSemaphore(jobs)
        self._watch = watch
        self._note = note

    async def image(self, wanted: Wanted, pulled: PulledImage) -> Sequence[RegistryRequest]:
        """Pull an image, count its parts, and return a request by digest for each part.

        Artifacts that are refused, such as those that violate a policy, are left out.

        :raises RegistryError: when a part cannot be pulled; the other blobs were pulled then.
        """
        if wanted.referrers and wanted.tags is None:
            wanted = evolve(wanted, tags=await self._list_tags(wanted.repository))
        seen: dict[Digest, ManifestDocument] = {}
        await self._manifest(wanted, wanted.reference, seen)
        pulled.manifests += len(seen)
        blobs = {blob.digest: blob for manifest in seen.values() for blob in manifest.blobs}
        pulling = [self._slots.run(self._start, wanted.repository, blob, pulled) for blob in blobs.values()]
        for _, outcome in await DeferredList(pulling, consumeErrors=True):
            if isinstance(outcome, Failure):
                outcome.raiseException()
        targets: list[ManifestTarget | Blob] = [
            *(ManifestTarget(wanted.repository, digest) for digest in seen),
            *(Blob(wanted.repository, digest) for digest in blobs if digest),
        ]
        return [RegistryRequest(target, accept=EVERYTHING) for target in targets]

    async def into_cache(self, wanted: Wanted, pulled: PulledImage, clock: IReactorTime) -> None:
        """Pull an image through a mirror, and ask the mirror whether it holds all parts.

        :raises RegistryError: when a part cannot be pulled, or is not held after that.
        """
        parts = await self.image(wanted, pulled)
        check = HeldCheck(self._registry, clock, self._slots.limit)
        if problem := explain_missing(await check.missing(parts)):
            raise RegistryError(problem)

    async def _list_tags(self, repository: Repository) -> Collection[str] | None:
        """Return a repository's tags; None if they cannot be listed, or are too many for that."""
        try:
            request = RegistryRequest(Tags(repository), revalidate=True)
            return set(await read_names(self._registry, request, "tags", TAG_PAGES))
        except RegistryError:  # artifacts are then requested by the tags that they would have
            return None

    def _start(self, repository: Repository, blob: Descriptor, pulled: PulledImage) -> Deferred[None]:
        return Deferred.fromCoroutine(self._blob(repository, blob, pulled))

    async def _manifest(
        self, wanted: Wanted, reference: Reference, seen: dict[Digest, ManifestDocument], depth: int = 0
    ) -> None:
        """Pull a manifest, its children and, if they are wanted, its referrers.

        :param depth: the number of manifests that led to this one.
        :raises ManifestInvalid: when they are too many, or one of them is no manifest.
        """
        if reference in seen:
            return
        if depth > MAX_DEPTH:
            raise ManifestInvalid(
                f"{reference} belongs to an image by a chain of more than {MAX_DEPTH} indexes and artifacts"
            )
        target = ManifestTarget(wanted.repository, reference)
        request = RegistryRequest(target, accept=EVERYTHING, revalidate=wanted.revalidate)
        data = await collect((await self._registry.fetch(request)).body, MANIFEST_LIMIT)
        digest = reference if isinstance(reference, Digest) else Digest.of(data)
        if digest in seen:
            return
        manifest = ManifestDocument.parse(data)
        if manifest is None:
            raise ManifestInvalid(f"{digest} is not an image manifest of a known type")
        seen[digest] = manifest
        children = [child for child in manifest.children if wanted.wants(child)]
        if manifest.children and not children:
            raise ManifestUnknown(f"the image has no manifest for {', '.join(map(str, wanted.platforms))}")
        for child in children:
            if child.descriptor.digest is not None:
                await self._manifest(wanted, child.descriptor.digest, seen, depth + 1)
        if wanted.referrers:
            everything = evolve(wanted, platforms=())
            await self._referrers(everything, digest, seen, depth + 1)
            await self._artifacts(everything, digest, seen, depth + 1)

    async def _referrers(
        self, wanted: Wanted, subject: Digest, seen: dict[Digest, ManifestDocument], depth: int
    ) -> None:
        """Pull a manifest's referrers, by the API or, if the registry has none, by the tag schema.

        Source: OCI distribution specification, "Listing Referrers" and "Referrers Tag Schema".
        """
        tag = Tag(f"{subject.algorithm}-{subject.hex}")
        for target in (Referrers(wanted.repository, subject), ManifestTarget(wanted.repository, tag)):
            if isinstance(target, ManifestTarget) and not wanted.has_tag(tag.name):
                continue
            try:
                answer = await self._registry.fetch(RegistryRequest(target, accept=EVERYTHING))
            except RegistryError as error:
                if error.status != 404 and not self._leaves_out(target, error):
                    raise
                continue
            listed = ManifestDocument.parse(await collect(answer.body, MANIFEST_LIMIT))
            for child in listed.children if listed else ():
                if child.descriptor.digest is not None:
                    await self._artifact(wanted, child.descriptor.digest, seen, depth)
            return

    async def _artifacts(
        self, wanted: Wanted, subject: Digest, seen: dict[Digest, ManifestDocument], depth: int
    ) -> None:
        """Pull the artifacts that cosign tags by the digest of a manifest."""
        for name in filter(wanted.has_tag, artifact_tags(subject)):
            try:
                await self._artifact(wanted, Tag(name), seen, depth)
            except RegistryError as error:
                if error.status != 404:
                    raise

    async def _artifact(
        self, wanted: Wanted, reference: Reference, seen: dict[Digest, ManifestDocument], depth: int
    ) -> None:
        """Pull an artifact, unless it is refused."""
        try:
            await self._manifest(wanted, reference, seen, depth)
        except RegistryError as error:
            if not self._leaves_out(ManifestTarget(wanted.repository, reference), error):
                raise

    def _leaves_out(self, target: ManifestTarget | Referrers, error: RegistryError) -> bool:
        """Return whether an artifact is refused for good, and note that."""
        is_refused = error.status == Denied.default_status
        if is_refused:
            self._note(f"{target} is left out: {error.summary}")
        return is_refused

    async def _blob(self, repository: Repository, blob: Descriptor, pulled: PulledImage) -> None:
        assert blob.digest is not None
        request = RegistryRequest(Blob(repository, blob.digest))
        if await is_held(self._registry, request):
            pulled.held += 1
            return
        answer = await self._registry.fetch(request)
        with self._watch(blob) as took:
            sink = _Sink(took)
            await answer.body.deliver(sink)
        pulled.fetched += 1
        pulled.bytes += sink.size


class HeldCheck:
    """Asks a mirror whether it holds what was pulled through it.

    A mirror stores a blob a moment after it has sent the last byte, so missing ones are checked again for
    a while.

    :param jobs: how many requests are sent at a time.
    """

    def __init__(self, registry: IRegistry, clock: IReactorTime, jobs: int = 1) -> None:
        self._registry = registry
        self._clock = clock
        self._slots = DeferredSemaphore(jobs)

    async def missing(self, requests: Collection[RegistryRequest]) -> list[RegistryRequest]:
        """Return the requests that the mirror does not answer from its cache."""
        for pause in (*HELD_PAUSES, None):
            checks = [self._slots.run(self._start, each) for each in requests]
            hits = [hit for _, hit in await DeferredList(checks)]
            requests = [each for each, hit in zip(requests, hits, strict=True) if hit is not True]
            if not requests or pause is None:
                break
            await deferLater(self._clock, pause)
        return list(requests)

    def _start(self, request: RegistryRequest) -> Deferred[bool]:
        return Deferred.fromCoroutine(is_held(self._registry, request))


def explain_missing(missing: Collection[RegistryRequest]) -> str | None:
    """Return a sentence about the parts that a mirror does not hold, or None when nothing is missing."""
    if not missing:
        return None
    first = min(str(part.target) for part in missing)
    return f"pulled, but the mirror does not hold {len(missing)} of its parts, such as {first}: see its log"


async def is_held(registry: IRegistry, request: RegistryRequest) -> bool:
    """Return whether the mirror says that it would answer from its cache."""
    try:
        cache = (await registry.fetch(evolve(request, head=True))).cache
    except RegistryError:  # a GET reports it, if it matters
        return False
    return cache is not None and cache.result.is_hit


@implementer(IConsumer)
@define
class _Sink:
    """Discards what is written, and reports its size."""

    _took: Callable[[int], None]
    size: int = field(default=0, init=False)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.size += len(data)
        self._took(len(data))
