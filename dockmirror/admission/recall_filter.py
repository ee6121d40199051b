"""Filters that neither give out nor store what is recalled, and cut off what was being given out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..body.bodies import BytesBody, collect
from ..concurrency.backoff import is_outage
from ..interfaces import Answer, ContentKind, IBody, IContentStore, IRegistry, IStoredContent, Sighting
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.header_fields import CacheResult
from ..oci.manifest import is_accepted_kind, parse_references
from ..oci.media import EVERYTHING
from ..oci.request import Blob, Manifest, RegistryRequest, Repository, Tag
from .recalls import Recall, Recalled, Recalls, explain, fallbacks

TagSightings = Callable[[Repository, Tag], Awaitable[Sequence[Sighting]]]
"""Returns the sightings of a tag, oldest first, or raises OSError."""
_MAX_MANIFEST = 4 * 1024 * 1024
_MAX_REMEMBERED = 10_000
_log = Logger()


class RunningDeliveries:
    """The bodies that this process delivers at the moment, by digest.

    :ivar begun: is called when a delivery begins; from then on ``cut`` must be called regularly.
    """

    def __init__(self) -> None:
        self.begun: Callable[[], None] = lambda: None
        self._running: dict[Digest, set[CuttableBody]] = {}

    def add(self, digest: Digest, body: CuttableBody) -> None:
        self._running.setdefault(digest, set()).add(body)
        self.begun()

    def __bool__(self) -> bool:
        return bool(self._running)

    def remove(self, digest: Digest, body: CuttableBody) -> None:
        running = self._running.get(digest, set())
        running.discard(body)
        if not running:
            self._running.pop(digest, None)

    def cut(self, recalls: Recalls, now: float) -> int:
        """Cut off the deliveries of what is recalled; return their number."""
        count = 0
        for digest in list(self._running) if recalls else ():
            recall = recalls.find_blob(digest, now)
            for body in list(self._running.get(digest, ())) if recall else ():
                assert recall is not None
                body.cut(recall)
                count += 1
        return count


@implementer(IBody)
class CuttableBody:
    """A body whose delivery ends with an error when its digest is recalled meanwhile."""

    def __init__(self, body: IBody, digest: Digest, deliveries: RunningDeliveries) -> None:
        self.descriptor = body.descriptor
        self._body = body
        self._digest = digest
        self._deliveries = deliveries
        self._delivery: Deferred[None] | None = None
        self._recall: Recall | None = None

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """:raises Recalled: when it was cut off."""
        self._deliveries.add(self._digest, self)
        self._delivery = self._body.deliver(consumer)
        return self._delivery.addBoth(self._end)

    def discard(self) -> None:
        self._body.discard()

    def cut(self, recall: Recall) -> None:
        """Cut the delivery off."""
        self._recall = recall
        if self._delivery is not None:
            self._delivery.cancel()

    def _end(self, outcome: Failure | None) -> Failure | None:
        self._deliveries.remove(self._digest, self)
        if self._recall is not None and isinstance(outcome, Failure) and outcome.check(CancelledError):
            raise Recalled(explain(self._recall, self._digest))
        return outcome


@frozen
class RecallContext:
    """Everything that the refusal of recalled contents needs, for one upstream.

    :ivar current: returns the recalls in force, for which it asks the file system.
    :ivar history: returns what a tag of this upstream has named.
    :ivar count: counts a decision: "refused" or "replaced".
    """

    current: Callable[[], Recalls]
    deliveries: RunningDeliveries
    history: TagSightings
    count: Callable[[str], None]
    clock: IReactorTime


@implementer(IRegistry)
class RecallFilter:
    """Refuses recalled digests, and manifests that refer to one, at every address.

    A HEAD of a manifest that is not held is answered by its digest alone, since a look into the manifest
    would count as a pull; where something was refused before, the manifest is fetched.
    """

    def __init__(self, registry: IRegistry, context: RecallContext) -> None:
        self._registry = registry
        self._context = context
        self._recalls = Recalls()
        self._checked: dict[Digest, Recall | None] = {}
        self._recalled_tags: dict[tuple[Repository, Tag], Digest] = {}
        self._affected: set[Repository] = set()

    async def fetch(self, request: RegistryRequest) -> Answer:
        """:raises Recalled: for what is recalled, and for a manifest that refers to it."""
        try:
            return await self._fetch(request)
        except Recalled:
            self._context.count("refused")
            raise

    async def _fetch(self, request: RegistryRequest) -> Answer:
        match request.target:
            case Blob() as target:
                self._check_blob(target.digest)
                answer = await self._registry.fetch(request)
                try:
                    self._check_blob(target.digest)  # it may have been recalled meanwhile
                except Recalled:
                    answer.body.discard()
                    raise
                return self._cuttable(target.digest, answer)
            case Manifest() as target:
                return await self._fetch_manifest(request, target)
        return await self._registry.fetch(request)

    def _check_blob(self, digest: Digest) -> None:
        recalls = self._current()
        recall = recalls.find_blob(digest, self._context.clock.seconds()) or self._checked.get(digest)
        if recall is not None:
            raise Recalled(explain(recall, digest))

    async def _fetch_manifest(self, request: RegistryRequest, target: Manifest) -> Answer:
        try:
            return await self._fetch_admitted(request, target)
        except Recalled as error:
            return await self._fall_back(request, target, error)
        except RegistryError as error:
            recall = await self._last_recall(target) if is_outage(error) else None
            if recall is None:
                raise
            return await self._fall_back(request, target, error)

    async def _fall_back(self, request: RegistryRequest, target: Manifest, error: RegistryError) -> Answer:
        """Serve what the tag named before, or raise the error; see rule 3."""
        if not isinstance(target.reference, Tag):
            raise error
        named = [each.digest for each in await self._sightings(target.repository, target.reference)]
        for digest in fallbacks(named, self._find):
            earlier = evolve(target, reference=digest)
            try:
                answer = await self._fetch_admitted(evolve(request, target=earlier), earlier)
            except RegistryError as refusal:
                if refusal.status in (403, 404):
                    continue
                raise error from refusal
            if not is_accepted_kind(request.accept, answer.body.descriptor.media_type):
                answer.body.discard()
                continue
            cache = None if answer.cache is None else evolve(answer.cache, immutable=False)
            self._context.count("replaced")
            warning = ("Warning", f'299 - "{digest} is served in place of a version that was recalled"')
            return evolve(answer, cache=cache, headers=(*answer.headers, warning))
        raise error

    async def _sightings(self, repository: Repository, tag: Tag) -> Sequence[Sighting]:
        try:
            return await self._context.history(repository, tag)
        except OSError as error:
            _log.error("{tag} has no fallback: {error}", tag=f"{repository}:{tag}", error=str(error))
            return ()

    async def _last_recall(self, target: Manifest) -> Recall | None:
        """Return the recall of what a tag named when the upstream last told."""
        if not isinstance(target.reference, Tag):
            return None
        sightings = await self._sightings(target.repository, target.reference)
        last = sightings[-1].digest if sightings else None
        return self._find(last) if last else None

    async def _fetch_admitted(self, request: RegistryRequest, target: Manifest) -> Answer:
        """:raises Recalled: for what is recalled, and for a manifest that refers to it."""
        await self._check_before(request, target)
        answer = await self._registry.fetch(request)
        if not self._current():
            return self._cuttable(target.digest, answer)
        answer, digest, recall = await self._inspect(request, target, answer)
        if recall is None:
            return self._cuttable(digest, answer)
        answer.body.discard()
        self._remember(target, digest)
        raise Recalled(explain(recall, digest))

    async def _check_before(self, request: RegistryRequest, target: Manifest) -> None:
        """Refuse what is known to be recalled without fetching it again, which could count as a pull."""
        digest = target.digest
        if not self._current():
            return
        if isinstance(target.reference, Tag):
            if (target.repository, target.reference) not in self._recalled_tags:
                return
            head = await self._registry.fetch(evolve(request, head=True, if_none_match=None))
            head.body.discard()
            digest = head.body.descriptor.digest
        recall = self._find(digest) if digest else None
        if recall is not None:
            raise Recalled(explain(recall, digest))

    def _find(self, digest: Digest) -> Recall | None:
        """Return the recall of a digest, or of what its manifest refers to as far as that is known."""
        return self._current().find(digest) or self._checked.get(digest)

    def _current(self) -> Recalls:
        """Return the recalls in force, and forget what was found out under other ones."""
        recalls = self._context.current()
        if recalls is not self._recalls:
            self._recalls = recalls
            self._checked.clear()
            self._recalled_tags.clear()
            self._affected.clear()
        return recalls

    async def _inspect(
        self, request: RegistryRequest, target: Manifest, answer: Answer
    ) -> tuple[Answer, Digest | None, Recall | None]:
        """Return the answer, its body in memory, with its digest and the recall that forbids it."""
        digest = answer.body.descriptor.digest
        is_whole = answer.status == 200 and not request.head
        if digest is not None:
            recall = self._find(digest)
            if recall is not None or digest in self._checked:
                return answer, digest, recall
        if is_whole:
            data = await collect(answer.body, _MAX_MANIFEST)
            answer = evolve(answer, body=BytesBody(data, answer.body.descriptor))
        elif answer.status in (200, 304) and (_is_held(answer) or target.repository in self._affected):
            try:
                data, digest = await self._read(request, target, digest)
            except RegistryError:  # the client gets no manifest from this answer
                return answer, digest, None
        else:
            return answer, digest, None
        digest = digest or Digest.of(data)
        recall = self._current().find(digest, parse_references(data))
        if len(self._checked) >= _MAX_REMEMBERED:
            self._checked.clear()
        self._checked[digest] = recall
        return answer, digest, recall

    async def _read(
        self, request: RegistryRequest, target: Manifest, digest: Digest | None
    ) -> tuple[bytes, Digest | None]:
        """Return the manifest of an answer without a body."""
        named = evolve(target, reference=digest or target.reference)
        whole = evolve(request, target=named, head=False, if_none_match=None, accept=EVERYTHING)
        answer = await self._registry.fetch(whole)
        return await collect(answer.body, _MAX_MANIFEST), answer.body.descriptor.digest

    def _remember(self, target: Manifest, digest: Digest | None) -> None:
        """Remember that the target is refused."""
        self._affected.add(target.repository)
        if isinstance(target.reference, Tag) and digest is not None:
            if len(self._recalled_tags) >= _MAX_REMEMBERED:
                self._recalled_tags.clear()
            self._recalled_tags[target.repository, target.reference] = digest

    def _cuttable(self, digest: Digest | None, answer: Answer) -> Answer:
        digest = digest or answer.body.descriptor.digest
        if digest is None or answer.status not in (200, 206) or isinstance(answer.body, BytesBody):
            return answer  # bytes in memory are written at once
        return answer.with_body(CuttableBody(answer.body, digest, self._context.deliveries))


def _is_held(answer: Answer) -> bool:
    return answer.cache is not None and answer.cache.result not in (CacheResult.MISS, CacheResult.BYPASS)


@implementer(IContentStore)
class RecalledContentFilter:
    """Neither stores nor links recalled contents, so that no pull brings them back.

    It hides none: ``RecallFilter`` refuses them, and falls back to what a tag named before.

    :param current: returns the recalls in force.
    """

    def __init__(self, contents: IContentStore, current: Callable[[], Recalls], clock: IReactorTime) -> None:
        self._contents = contents
        self._current = current
        self._clock = clock

    async def open(self, repository: Repository, digest: Digest, kind: ContentKind) -> IStoredContent | None:
        return await self._contents.open(repository, digest, kind)

    async def holds(self, digest: Digest) -> bool:
        return await self._contents.holds(digest)

    async def peek(self, digest: Digest) -> IStoredContent | None:
        return await self._contents.peek(digest)

    async def link(self, repository: Repository, digest: Digest, kind: ContentKind) -> bool:
        return not self._is_recalled(digest) and await self._contents.link(repository, digest, kind)

    async def add(self, repository: Repository, digest: Digest, kind: ContentKind, data: bytes) -> bool:
        return not self._is_recalled(digest) and await self._contents.add(repository, digest, kind, data)

    async def unlink(self, repository: Repository, digest: Digest, kind: ContentKind) -> None:
        await self._contents.unlink(repository, digest, kind)

    def _is_recalled(self, digest: Digest) -> bool:
        return self._current().find_blob(digest, self._clock.seconds()) is not None
