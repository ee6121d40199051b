"""Observers of the outcome of each request: what clients were sent, and what upstreams answered."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import cache, partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.logger import Logger
from zope.interface import implementer

from ..concurrency.backoff import is_outage
from ..history.recorder import PullRecorder
from ..http.server_request import ServerRequest
from ..interfaces import Answer, IBody, IRegistry, ITokenService, IUpstream, IWritableRegistry
from ..metrics import Metrics
from ..oci.errors import RegistryError, TimedOut, Unavailable, Unreachable
from ..oci.header_fields import CacheResult
from ..oci.request import Blob, Manifest, Ping, RegistryRequest
from ..oci.token import Scope, TokenRequest
from ..oci.write import Write, WriteResult
from ..status import AddressHealth

_log = Logger()
_HELD = {CacheResult.HIT, CacheResult.STALE_WHILE_REVALIDATE, CacheResult.CONFIRMED, CacheResult.STALE}


@implementer(IBody)
class _ObservedBody:
    """Reports the size of a body that was delivered whole."""

    def __init__(self, body: IBody, delivered: Callable[[int], None]) -> None:
        self.descriptor = body.descriptor
        self._body = body
        self._delivered = delivered

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        size = self.descriptor.size or 0
        return self._body.deliver(consumer).addCallback(lambda _: self._delivered(size))

    def discard(self) -> None:
        self._body.discard()


@implementer(IRegistry)
class RequestObserver:
    """Counts for each request what the cache did, and what the client was sent.

    :param upstream: the upstream's name in the settings, which the metrics bear.
    """

    def __init__(self, registry: IRegistry, upstream: str, metrics: Metrics) -> None:
        self._registry = registry
        self._results: Callable[[str, str], Any] = cache(partial(metrics.results.labels, upstream))
        self._held_bytes = metrics.held_bytes.labels(upstream)

    async def fetch(self, request: RegistryRequest) -> Answer:
        answer = await self._registry.fetch(request)
        result = answer.cache.result if answer.cache else None
        if result is not None:
            self._results(type(request.target).__name__.lower(), label(result)).inc()
        if request.head or answer.status not in (200, 206) or result not in _HELD:
            return answer
        return answer.with_body(_ObservedBody(answer.body, self._held_bytes.inc))


@implementer(IRegistry)
class PullObserver:
    """Records the requests of clients for manifests and blobs as parts of pulls.

    A blob that a peer requests is recorded by the peer, for its own client.  Peers request no manifests, so a
    client that pretends to be a peer hides no pull.

    :param name: the registry's name.
    :param is_limited: tells if the upstream limits pulls.
    """

    def __init__(
        self, registry: IRegistry, name: str, pulls: PullRecorder, is_limited: Callable[[], bool]
    ) -> None:
        self._registry = registry
        self._name = name
        self._pulls = pulls
        self._is_limited = is_limited

    async def fetch(self, request: RegistryRequest) -> Answer:
        received, target = request.received, request.target
        if not isinstance(target, Manifest | Blob) or not isinstance(received, ServerRequest):
            return await self._registry.fetch(request)
        if isinstance(target, Blob) and received.is_from_peer:
            return await self._registry.fetch(request)
        self._pulls.begin(received, self._name, target, request.head)
        answer = await self._registry.fetch(request)
        return self._pulls.answered(received, answer, self._is_limited)


@implementer(ITokenService)
class TokenObserver:
    """Counts for each request of a token what the cache did."""

    def __init__(self, tokens: ITokenService, upstream: str, metrics: Metrics) -> None:
        self._tokens = tokens
        self._results: Callable[[str], Any] = partial(metrics.results.labels, upstream, "token")
        self._held_bytes = metrics.held_bytes.labels(upstream)

    async def token(self, request: TokenRequest) -> Answer:
        answer = await self._tokens.token(request)
        if answer.cache is None:
            return answer
        self._results(label(answer.cache.result)).inc()
        if answer.cache.result not in _HELD:
            return answer
        return answer.with_body(_ObservedBody(answer.body, self._held_bytes.inc))


def label(result: CacheResult) -> str:
    """Return the metric's label for a result; a miss is one whether it was stored or not."""
    return "miss" if result is CacheResult.STORED else result.name.lower()


@implementer(IUpstream)
class UpstreamObserver:
    """Records the health of one address of an upstream, and counts its failures.

    :param upstream: the upstream's name in the settings.
    """

    def __init__(self, address: IUpstream, upstream: str, metrics: Metrics, health: AddressHealth) -> None:
        self._address = address
        self._failures: Callable[[str], Any] = partial(metrics.upstream_failures.labels, upstream)
        for reason in ("timed_out", "unreachable", "useless"):
            self._failures(reason)
        self._health = health

    async def fetch(self, request: RegistryRequest) -> Answer:
        """An anonymous ``/v2/`` is answered from memory, which proves nothing."""
        is_remembered = isinstance(request.target, Ping) and request.credentials is None
        return await self._observe(self._address.fetch(request), is_remembered)

    async def token(self, request: TokenRequest) -> Answer:
        return await self._observe(self._address.token(request))

    async def _observe(self, answering: Coroutine[Any, Any, Answer], is_remembered: bool = False) -> Answer:
        try:
            answer = await answering
        except RegistryError as error:
            if isinstance(error, Unavailable):
                self._failures(_reason(error)).inc()
            if is_outage(error):
                self._health.record_failure(error.summary)
            elif not is_remembered:
                self._health.record_answer()
            raise
        if not is_remembered:
            self._health.record_answer()
        return answer


class AccountObserver:
    """Logs, counts and records that an address of an upstream refused an account of the mirror's own.

    :param upstream: the upstream's name in the settings.
    :param account: the account in words, with its setting and without its password.
    """

    def __init__(self, upstream: str, account: str, metrics: Metrics, health: AddressHealth) -> None:
        self._subject = f"the upstream {upstream} refused {account}"
        self._count = metrics.upstream_failures.labels(upstream, "account")
        self._health = health

    def __call__(self, scope: Scope, is_first: bool) -> None:
        """Report a refusal; see ``LoginAttempts``."""
        reason = f"{self._subject} for {scope}"
        self._count.inc()
        self._health.record_failure(reason)
        if is_first:
            _log.warn("{reason}; is its password right?", reason=reason)


@implementer(IWritableRegistry)
class WriteMetrics:
    """Counts an upstream's answers to writes, and its failures.

    :param upstream: the upstream's name in the settings.
    """

    def __init__(self, writes: IWritableRegistry, upstream: str, metrics: Metrics) -> None:
        self._writes = writes
        self._upstream = upstream
        self._metrics = metrics

    async def write(self, write: Write, body: IBody) -> WriteResult:
        try:
            result = await self._writes.write(write, body)
        except RegistryError as error:
            self._count(write, error.status)
            if isinstance(error, Unavailable):
                self._metrics.upstream_failures.labels(self._upstream, _reason(error)).inc()
            raise
        self._count(write, result.status)
        return result

    def _count(self, write: Write, status: int) -> None:
        self._metrics.writes.labels(self._upstream, write.method, str(status)).inc()


def _reason(error: Unavailable) -> str:
    if isinstance(error, TimedOut):
        return "timed_out"
    return "unreachable" if isinstance(error, Unreachable) else "useless"
