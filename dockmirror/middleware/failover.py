"""Several addresses of one upstream: a request that one cannot answer in time goes to the next.

An address that has sent wrong bytes for a blob is not asked for it for a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ..body.bodies import CorruptContent
from ..concurrency.backoff import RequestCircuitBreaker, is_outage
from ..concurrency.coroutines import TTLCache
from ..interfaces import Answer, IRegistry, IUpstream
from ..oci.digest import Digest
from ..oci.errors import RegistryError, TimedOut, Unavailable
from ..oci.request import Blob, Manifest, Ping, RegistryRequest, Target
from ..oci.token import TokenRequest
from ..pullthrough.upstream_gateway import TIMEOUT_WITH_STALE

QUARANTINE_TTL = 60.0
"""Seconds for which a wrong blob is not fetched again."""
_MOST = 10_000
_Ask = Callable[[], Coroutine[Any, Any, Answer]]


class Quarantined(CorruptContent):
    """The address has sent wrong bytes for the blob within the last minute; another address may have it."""


@implementer(IUpstream)
class CorruptBlobQuarantine:
    """An address of an upstream that is not asked for a blob which it has just sent wrong.

    The store, which verifies blobs, reports wrong ones by ``Answer.reject``.  Only requests for the whole
    blob or its rest are refused: the upstream is still asked whether a client may have it.
    """

    def __init__(self, registry: IUpstream, clock: IReactorTime) -> None:
        self._registry = registry
        self._rejected: TTLCache[Digest, bool] = TTLCache(clock, _MOST)

    async def token(self, request: TokenRequest) -> Answer:
        return await self._registry.token(request)

    async def fetch(self, request: RegistryRequest) -> Answer:
        """:raises Quarantined: for a blob in quarantine."""
        target = request.target
        if isinstance(target, Blob) and _reaches_the_end(request) and self._rejected.get(target.digest):
            raise Quarantined(f"the upstream has just sent wrong bytes for {target.digest}")
        return evolve(await self._registry.fetch(request), reject=self._reject)

    def _reject(self, digest: Digest) -> None:
        self._rejected.put(digest, True, QUARANTINE_TTL)


def _reaches_the_end(request: RegistryRequest) -> bool:
    """Return whether the request is for all of a content or for its rest."""
    if request.head:
        return False
    span = request.range.single if request.range else None
    return request.range is None or (span is not None and span.first is not None and span.last is None)


def can_use_fallback(request: RegistryRequest) -> Target | None:
    """Return the target if another registry may be asked for it: a digest, without credentials; or None."""
    target = request.target
    by_digest = isinstance(target, Blob) or (isinstance(target, Manifest) and target.digest is not None)
    return target if by_digest and request.credentials is None else None


@implementer(IRegistry)
class Failover:
    """One registry at several addresses, each of which may be asked for anything."""

    def __init__(self, registries: Sequence[IRegistry], clock: IReactorTime) -> None:
        self._clock = clock
        self._share = share_of_timeout(len(registries))
        self._all = [UpstreamAddress(registry, clock, self._share) for registry in registries]

    async def fetch(self, request: RegistryRequest) -> Answer:
        """Ask the addresses in turn; if all fail, raise the first one's error."""
        return await self._first(request, lambda address: address.fetch(request))

    async def _first(
        self, request: RegistryRequest, ask: Callable[[UpstreamAddress], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        asks = [partial(ask, address) for address in _available(self._all, request)]
        return await _Turns(asks, self._share, self._clock).answer


@implementer(IUpstream)
class UpstreamFailover(Failover):
    """One registry at several addresses, each with its own token service."""

    def __init__(self, upstreams: Sequence[IUpstream], clock: IReactorTime) -> None:
        super().__init__(upstreams, clock)
        self._token_services = dict(zip(self._all, upstreams, strict=True))

    async def token(self, request: TokenRequest) -> Answer:
        """Ask an address that can be asked for what the token is for."""
        probe = RegistryRequest(Ping(), credentials=request.credentials)
        return await self._first(
            probe,
            lambda address: address.ask(probe, lambda: self._token_services[address].token(request)),
        )


@implementer(IRegistry)
class FallbackMirror:
    """A registry, and others that are asked for a digest while it cannot answer.

    Their refusals mean nothing; their contents are verified as any.

    :param others: registries that are never given credentials.
    """

    def __init__(self, registry: IRegistry, others: Sequence[IRegistry], clock: IReactorTime) -> None:
        self._clock = clock
        self._registry = registry
        self._share = share_of_timeout(1 + len(others))
        self._own = UpstreamAddress(registry, clock, self._share)
        self._others = [UpstreamAddress(other, clock, self._share) for other in others]

    async def fetch(self, request: RegistryRequest) -> Answer:
        """Ask the registry, then the others; if all fail, raise the error of the registry itself."""
        if can_use_fallback(request) is None:
            return await self._registry.fetch(request)
        pausing = self._own.open_circuit(request)
        addresses = _available([self._own, *self._others], request)
        asks = [partial(self._ask, address, request) for address in addresses]
        try:
            return await _Turns(asks, self._share, self._clock).answer
        except RegistryError as error:
            if pausing is None or addresses[0] is self._own:
                raise
            raise pausing from error

    async def _ask(self, address: UpstreamAddress, request: RegistryRequest) -> Answer:
        if address is self._own:
            return await address.fetch(request)
        try:
            return evolve(await address.fetch(request), from_other_host=True)
        except RegistryError as error:
            raise Unavailable("the other registry did not give it") from error


@implementer(IUpstream)
class UpstreamFallback(FallbackMirror):
    """A fallback mirror in front of an upstream, whose token service alone is asked."""

    def __init__(self, upstream: IUpstream, others: Sequence[IRegistry], clock: IReactorTime) -> None:
        super().__init__(upstream, others, clock)
        self._upstream = upstream

    async def token(self, request: TokenRequest) -> Answer:
        return await self._upstream.token(request)


def share_of_timeout(addresses: int) -> float:
    """Return the seconds after which an address that is silent is not waited for any more.

    So all addresses are asked within the time that the upstream has if stored content can be served instead.
    """
    return TIMEOUT_WITH_STALE / addresses


class _Turns:
    """Asks several addresses in turn: the next one once one has failed, or was silent for its share of time.

    A silent address may still answer before the next one does; the rest are cancelled then.

    :param asks: each asks one address.
    :ivar answer: the first answer, or the first refusal; if all fail, the first one's error.
    """

    def __init__(self, asks: Sequence[_Ask], share: float, clock: IReactorTime) -> None:
        self.answer: Deferred[Answer] = Deferred(lambda _: self._stop())
        self._asks = asks
        self._share = share
        self._clock = clock
        self._context = copy_context()  # a call of the reactor has none of the request's
        self._started = 0
        self._asked: list[Deferred[None]] = []
        self._failures: dict[int, RegistryError] = {}
        self._turn: IDelayedCall | None = None
        self._has_ended = False
        self._ask_next()

    def _ask_next(self) -> None:
        self._stop_waiting()
        number = self._started
        self._started += 1
        asking = self._context.copy().run(Deferred.fromCoroutine, self._asks[number]())
        if self._started < len(self._asks):
            self._turn = self._clock.callLater(self._share, self._ask_next)
        self._asked.append(asking.addCallbacks(self._finish, self._fail, errbackArgs=(number,)))

    def _finish(self, answer: Answer) -> None:
        if self._has_ended:  # it came although it was cancelled
            answer.body.discard()
            return
        self._stop()
        self.answer.callback(answer)

    def _fail(self, failure: Failure, number: int) -> None:
        if self._has_ended:
            return
        error = failure.value
        if not isinstance(error, RegistryError) or not _may_try_next(error):
            self._stop()
            self.answer.errback(failure)
            return
        self._failures[number] = error
        if self._started < len(self._asks):
            self._ask_next()
        elif len(self._failures) == len(self._asks):
            self.answer.errback(self._failures[0])

    def _stop(self) -> None:
        self._has_ended = True
        self._stop_waiting()
        for asked in self._asked:
            asked.cancel()

    def _stop_waiting(self) -> None:
        if self._turn is not None and self._turn.active():
            self._turn.cancel()


class UpstreamAddress:
    """One of several addresses of a registry, with a circuit breaker.

    :param share: seconds without an answer after which a cancelled request counts as the upstream's timeout.
    """

    def __init__(self, registry: IRegistry, clock: IReactorTime, share: float) -> None:
        self._registry = registry
        self._breaker = RequestCircuitBreaker(clock)
        self._clock = clock
        self._share = share

    def open_circuit(self, request: RegistryRequest) -> RegistryError | None:
        """Return the error because of which the address should not be asked now, or None."""
        return self._breaker.error(request, can_answer=True)

    async def fetch(self, request: RegistryRequest) -> Answer:
        return await self.ask(request, lambda: self._registry.fetch(request))

    async def ask(self, request: RegistryRequest, ask: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        error = self._breaker.error(request, can_answer=False)
        if error is not None:
            raise error
        began = self._clock.seconds()
        try:
            answer = await ask()
        except CancelledError:
            if self._clock.seconds() - began >= self._share:
                self._breaker.record_failure(request, TimedOut("the upstream did not answer"))
            raise
        except Quarantined:
            raise
        except RegistryError as failure:
            if is_outage(failure):
                self._breaker.record_failure(request, failure)
            else:
                self._breaker.record_success(request)
            raise
        self._breaker.record_success(request)
        return answer


def _available(addresses: Sequence[UpstreamAddress], request: RegistryRequest) -> Sequence[UpstreamAddress]:
    """Return the addresses whose circuit is closed; all of them if none is."""
    return [address for address in addresses if address.open_circuit(request) is None] or addresses


def _may_try_next(error: RegistryError) -> bool:
    return is_outage(error) or isinstance(error, Quarantined)
