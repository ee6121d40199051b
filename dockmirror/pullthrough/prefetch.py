"""Layers of an image that a client has begun to pull, fetched before the client asks for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..concurrency.coroutines import TTLCache
from ..interfaces import Answer, IContentStore, IFileConsumer, IRegistry
from ..oci.digest import Digest
from ..oci.errors import RegistryError, TooManyRequests
from ..oci.header_fields import CacheResult, Range
from ..oci.request import Blob, Manifest, RegistryRequest, Repository
from ..oci.token import Credentials
from ..system.shared_table import SharedDigests
from .error_tolerant_store import ErrorTolerantContentStore
from .manifest_store import ManifestStore

MAX_IDLE = 30.0
"""Seconds without a request for the image after which its prefetch is cancelled."""
MAX_AHEAD = 2 * 1024**3
"""Bytes of an image that may be fetched before the client asks for them."""
PER_UPSTREAM, PER_CLIENT = 4, 2
"""Transfers at the same time."""
MAX_WASTE = 0.1
"""Share of the prefetched bytes that nobody may ask for, before prefetching stops for a while."""
WASTE_PERIOD = 3600.0
"""Seconds over which waste is judged."""
MIN_JUDGED = 256 * 1024**2
"""Prefetched bytes from which on waste is judged: one cancelled pull is no sign."""
LIMIT_PAUSE = 600.0
"""Seconds without prefetching after the upstream's 429."""
_TICK = 1.0
_MANIFEST_TTL = 600.0
_MAX_MANIFESTS = 10_000
_MAX_PER_REPOSITORY = 4
_BEGUN = {CacheResult.STORED, CacheResult.JOINED}

_Client = tuple[Repository, Credentials | None]
_log = Logger()


@implementer(IFileConsumer)
class _Sink:
    """Takes bytes that only the cache wants, without reading them."""

    def __init__(self) -> None:
        self.size = 0

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Never pause the producer."""

    def unregisterProducer(self) -> None:
        """Do nothing: the producer was not kept."""

    def write(self, data: bytes) -> None:
        self.size += len(data)

    def send_file(self, file: int, offset: int, length: int) -> int | None:
        self.size += length
        return length


class PrefetchBudget:
    """Limits of the prefetching from one upstream, on all of its hosts: transfers, waste, space, 429.

    :ivar ahead: bytes of one image that may be fetched before the client asks for them.
    :param transfers: transfers at the same time.
    :param has_space: tells if the cache may take more than clients ask for.
    :param count: counts bytes that were prefetched, and those of them that no client asked for.
    """

    def __init__(
        self,
        clock: IReactorTime,
        transfers: int,
        has_space: Callable[[], bool],
        count: Callable[[int, int], None],
        ahead: int = MAX_AHEAD,
    ) -> None:
        self.ahead = ahead
        self._clock = clock
        self._free = transfers
        self._has_space = has_space
        self._count = count
        self._resumes = 0.0
        self._outcomes: deque[tuple[float, int, int]] = deque()

    def is_open(self) -> bool:
        """Return whether prefetching may begin or go on."""
        now = self._clock.seconds()
        while self._outcomes and self._outcomes[0][0] <= now - WASTE_PERIOD:
            self._outcomes.popleft()
        fetched = sum(each for _, each, _ in self._outcomes)
        wasted = sum(each for _, _, each in self._outcomes)
        is_wasteful = fetched >= MIN_JUDGED and wasted > MAX_WASTE * fetched
        return now >= self._resumes and not is_wasteful and self._has_space()

    def take(self) -> bool:
        """Take the right to one transfer; return False if there is none."""
        if self._free <= 0 or not self.is_open():
            return False
        self._free -= 1
        return True

    def give_back(self) -> None:
        self._free += 1

    def pause(self) -> None:
        """Stop for a while: the upstream limits requests."""
        self._resumes = self._clock.seconds() + LIMIT_PAUSE

    def record(self, fetched: int, wasted: int) -> None:
        """Record what an image cost, once its pull has ended."""
        self._count(fetched, wasted)
        self._outcomes.append((self._clock.seconds(), fetched, wasted))


@frozen
class _Transfer:
    digest: Digest
    sink: _Sink
    delivery: Deferred[None]


@frozen
class _Parts:
    registry: IRegistry
    contents: IContentStore
    budget: PrefetchBudget
    clock: IReactorTime
    prefetched: SharedDigests


class _ImagePrefetch:
    """The prefetch of one image for one client, from the first layer that is missing on.

    It ends when the client has asked for all of it or for nothing in a while, or when a transfer fails.

    :param request: the client's request for the first layer, whose credentials are used.
    :param layers: the layers behind that one.
    :param may_begin: tells if the client may have one more transfer.
    :param ended: called at the end.
    """

    def __init__(
        self,
        parts: _Parts,
        request: RegistryRequest,
        layers: Sequence[Digest],
        may_begin: Callable[[], bool],
        ended: Callable[[], None],
    ) -> None:
        self._transfers: list[_Transfer] = []
        self._parts = parts
        self._request = request
        self._waiting = deque(layers)
        self._missing = set(layers)
        self._may_begin = may_begin
        self._ended = ended
        self._sizes: dict[Digest, int] = {}
        self._last_request = parts.clock.seconds()
        self._is_over = self._is_advancing = False
        self._tick = parts.clock.callLater(_TICK, self._advance_later)

    def record_request(self, digest: Digest) -> None:
        """Record that the client asked for a layer of the image."""
        self._last_request = self._parts.clock.seconds()
        before = len(self.ahead)
        self._missing.discard(digest)
        if len(self.ahead) < before:
            self._parts.budget.give_back()
        with suppress(ValueError):
            self._waiting.remove(digest)
        self.advance()

    @property
    def ahead(self) -> Sequence[_Transfer]:
        """The transfers of layers that the client has not asked for; the others count as its own requests."""
        return [each for each in self._transfers if each.digest in self._missing]

    def advance(self) -> None:
        """Begin transfers as far as the limits allow, or end."""
        if self._is_over or self._is_advancing:
            return
        is_idle = self._parts.clock.seconds() - self._last_request >= MAX_IDLE
        if is_idle or not self._parts.budget.is_open() or not (self._missing or self._transfers):
            self._end()
            return
        self._is_advancing = True  # a layer that is held needs no transfer, and finishes at once
        while self._waiting and self._may_begin() and self._bytes_ahead() < self._parts.budget.ahead:
            if not self._parts.budget.take():
                break
            self._begin(self._waiting.popleft())
        self._is_advancing = False

    def _advance_later(self) -> None:
        self._tick = self._parts.clock.callLater(_TICK, self._advance_later)
        self.advance()

    def _bytes_ahead(self) -> int:
        running = sum(each.sink.size for each in self.ahead)
        return running + sum(self._sizes.get(digest, 0) for digest in self._missing)

    def _begin(self, digest: Digest) -> None:
        sink = _Sink()
        transfer = _Transfer(digest, sink, Deferred.fromCoroutine(self._fetch(digest, sink)))
        self._transfers.append(transfer)
        transfer.delivery.addCallbacks(
            lambda _: self._finish(transfer), lambda failure: self._fail(transfer, failure)
        )

    async def _fetch(self, digest: Digest, sink: _Sink) -> None:
        target = self._request.target
        assert isinstance(target, Blob)
        if not await self._parts.contents.holds(digest):
            answer = await self._parts.registry.fetch(
                evolve(self._request, target=evolve(target, digest=digest))
            )
            if answer.cache is not None and answer.cache.result is CacheResult.STORED:
                self._parts.prefetched.add(_key(digest))
            await answer.body.deliver(sink)

    def _finish(self, transfer: _Transfer) -> None:
        self._transfers.remove(transfer)
        if transfer.digest in self._missing:
            self._parts.budget.give_back()
        self._sizes[transfer.digest] = transfer.sink.size
        self.advance()

    def _fail(self, transfer: _Transfer, failure: Failure) -> None:
        if failure.check(TooManyRequests):
            self._parts.budget.pause()
        elif not failure.check(RegistryError, OSError, CancelledError):
            _log.failure("the prefetch of {digest} failed", failure=failure, digest=transfer.digest)
        self._waiting.clear()
        self._missing &= {*self._sizes, *(each.digest for each in self._transfers)}
        self._finish(transfer)

    def _end(self) -> None:
        self._is_over = True
        self._tick.cancel()
        self._waiting.clear()
        for transfer in list(self._transfers):
            transfer.delivery.cancel()
        wasted = sum(self._sizes.get(digest, 0) for digest in self._missing)
        self._parts.budget.record(sum(self._sizes.values()), wasted)
        self._ended()


def _key(digest: Digest) -> bytes:
    return bytes.fromhex(digest.hex)[:32]


def _for_prefetch(request: RegistryRequest) -> RegistryRequest:
    """Return the request for a whole layer, without the client's HTTP request, which ends before it."""
    return evolve(request, range=None, if_none_match=None, received=None)


@implementer(IRegistry)
class PrefetchRegistry:
    """Fetches the layers behind the first one that a client asks for and that is not held.

    Asking for manifests costs nothing.  Each layer is fetched as the client would fetch it, through the
    registry below and with its credentials, and is checked as its own requests are.  A client is known by
    its repository and its credentials: all who pull the same public image count as one.  A peer is no
    client: it prefetches by itself.

    :param store_name: returns the store's name of a repository.
    :param prefetched: layers that were prefetched, and that no client of any process has asked for yet.
    """

    def __init__(
        self,
        registry: IRegistry,
        contents: IContentStore,
        budget: PrefetchBudget,
        clock: IReactorTime,
        store_name: Callable[[Repository], Repository],
        prefetched: SharedDigests,
    ) -> None:
        self._registry = registry
        self._manifests = ManifestStore(ErrorTolerantContentStore(contents))
        self._budget = budget
        self._store_name = store_name
        self._parts = _Parts(registry, contents, budget, clock, prefetched)
        self._served: TTLCache[_Client, tuple[Digest, ...]] = TTLCache(clock, _MAX_MANIFESTS)
        self._running: dict[_Client, dict[Digest, _ImagePrefetch]] = {}

    async def fetch(self, request: RegistryRequest) -> Answer:
        answer = await self._registry.fetch(request)
        target = request.target
        if isinstance(target, Manifest) and not request.head:
            self._record_manifest((target.repository, request.credentials), answer)
        elif isinstance(target, Blob) and not (request.received and request.received.is_from_peer):
            if not request.head:
                self._record_blob(request, target, answer)
            return self._count_as_fetched(target.digest, answer, request.head)
        return answer

    def _count_as_fetched(self, digest: Digest, answer: Answer, head: bool) -> Answer:
        """Return the answer with a layer; for the first client that fetches it, a prefetch saves nothing."""
        cache, key, prefetched = answer.cache, _key(digest), self._parts.prefetched
        if answer.status not in (200, 206) or not (key in prefetched if head else prefetched.discard(key)):
            return answer
        if cache is None or cache.result not in (CacheResult.HIT, CacheResult.CONFIRMED):
            return answer
        return evolve(answer, cache=evolve(cache, result=CacheResult.JOINED))

    def _record_manifest(self, client: _Client, answer: Answer) -> None:
        digest = answer.body.descriptor.digest
        if answer.status == 200 and digest is not None:
            others = [each for each in self._served.get(client) or () if each != digest]
            self._served.put(client, (digest, *others[: _MAX_PER_REPOSITORY - 1]), _MANIFEST_TTL)

    def _record_blob(self, request: RegistryRequest, target: Blob, answer: Answer) -> None:
        client = target.repository, request.credentials
        for each in list(self._running.get(client, {}).values()):
            each.record_request(target.digest)
        is_missing = answer.cache is not None and answer.cache.result in _BEGUN
        is_whole = request.range is None or request.range == Range.starting_at(0)
        if is_missing and is_whole and self._budget.is_open():  # the answer does not wait for it
            begun = Deferred.fromCoroutine(self._begin(client, request, target))
            begun.addErrback(lambda failure: _log.failure("a prefetch was not begun", failure=failure))

    async def _begin(self, client: _Client, request: RegistryRequest, target: Blob) -> None:
        for digest in self._served.get(client) or ():
            layers = await self._layers_behind(self._store_name(target.repository), digest, target.digest)
            # a client asks for several layers at once, and another request may have begun it meanwhile
            if running := self._running.get(client, {}).get(digest):
                running.record_request(target.digest)
            elif layers:
                self._start(client, digest, _for_prefetch(request), layers)

    async def _layers_behind(self, place: Repository, manifest: Digest, layer: Digest) -> Sequence[Digest]:
        """Return the image's layers that follow this one."""
        stored = await self._manifests.get(place, manifest)
        references = None if stored is None else self._manifests.references(stored)
        if references is None or not references.is_image:
            return ()
        layers = references.blobs[1:]
        return layers[layers.index(layer) + 1 :] if layer in layers else ()

    def _start(
        self, client: _Client, manifest: Digest, request: RegistryRequest, layers: Sequence[Digest]
    ) -> None:
        images = self._running.setdefault(client, {})

        def may_begin() -> bool:
            return sum(len(each.ahead) for each in images.values()) < PER_CLIENT

        def forget() -> None:
            del images[manifest]
            if not images:
                del self._running[client]

        images[manifest] = _ImagePrefetch(self._parts, request, layers, may_begin, forget)
        images[manifest].advance()
