"""Registries whose answers are counted."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from ..interfaces import Answer, IBody, IRegistry, IWritableRegistry
from ..metrics import OTHER, Metrics
from ..oci.errors import RegistryError, TimedOut, Unavailable, Unreachable
from ..oci.request import RegistryRequest
from ..oci.token import TokenRequest
from ..oci.write import Write, WriteResult

_RESULTS = {
    ("hit",): "hit",
    ("hit", "detail=redirect"): "redirected",
    ("fwd=miss",): "miss",
    ("fwd=miss", "stored"): "miss",
    ("fwd=miss", "collapsed"): "joined",
    ("fwd=stale", "detail=confirmed"): "confirmed",
    ("fwd=stale", "detail=upstream"): "stale",
    ("fwd=bypass",): "bypass",
}
_HELD = {"hit", "confirmed", "stale"}
_HITS = _HELD | {"joined"}
"""What is sent without an upstream having to send it for this request."""
_CONTENTS = {"blob", "manifest"}


@implementer(IBody)
class _CountedBytes:
    """Counts the bytes of a content that was delivered whole."""

    def __init__(self, content: IBody, count: Callable[[int], None]) -> None:
        self.descriptor = content.descriptor
        self._content = content
        self._count = count

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``."""
        return self._content.deliver(consumer).addCallback(self._delivered)

    def discard(self) -> None:
        """See ``IBody``."""
        self._content.discard()

    def _delivered(self, _: None) -> None:
        self._count(self.descriptor.size or 0)


@implementer(IRegistry)
class CacheMetrics:
    """Counts what a cache did with each request, by what its answers say of themselves.

    :param upstream: whose cache it is, by its name in the settings.
    :param asked: is told of each request for a blob or a manifest whether it was a hit.
    """

    def __init__(
        self,
        registry: IRegistry,
        upstream: str,
        metrics: Metrics,
        asked: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._registry = registry
        self._upstream = upstream
        self._count = metrics.results
        self._held = metrics.held_bytes.labels(upstream)
        self._asked = asked

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``."""
        endpoint = type(request.target).__name__.lower()
        return self._counted(endpoint, await self._registry.fetch(request))

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return self._counted("token", await self._registry.token(request))

    def _counted(self, endpoint: str, answer: Answer) -> Answer:
        told = dict(answer.headers).get("Cache-Status")
        if told is None:
            return answer
        came = result(told)
        self._count.labels(self._upstream, endpoint, came).inc()
        if endpoint in _CONTENTS:
            self._asked(came in _HITS)
        if came not in _HELD:
            return answer
        return evolve(answer, body=_CountedBytes(answer.body, self._held.inc))


def result(told: str) -> str:
    """The word for what a ``CacheParts-Status`` of ours says."""
    return _RESULTS.get(tuple(part.strip() for part in told.split(";")[1:]), OTHER)


@implementer(IRegistry)
class ErrorMetrics:
    """Counts how often an upstream gave no answer, or none of use."""

    def __init__(self, registry: IRegistry, upstream: str, metrics: Metrics) -> None:
        self._registry = registry
        self._count: Callable[[str], Any] = lambda reason: metrics.upstream_failures.labels(upstream, reason)
        for reason in ("timed_out", "unreachable", "useless"):
            self._count(reason)

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._counting(self._registry.fetch(request))

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._counting(self._registry.token(request))

    async def _counting(self, asked: Coroutine[Any, Any, Answer]) -> Answer:
        try:
            return await asked
        except Unavailable as error:
            self._count(_reason(error)).inc()
            raise


@implementer(IWritableRegistry)
class WriteMetrics:
    """Counts what an upstream says to writes, and how often it says nothing of use."""

    def __init__(self, writes: IWritableRegistry, upstream: str, metrics: Metrics) -> None:
        self._writes = writes
        self._upstream = upstream
        self._metrics = metrics

    async def write(self, write: Write, body: IBody) -> WriteResult:
        """See ``IWritableRegistry``."""
        try:
            written = await self._writes.write(write, body)
        except RegistryError as error:
            self._count(write, error.status)
            if isinstance(error, Unavailable):
                self._metrics.upstream_failures.labels(self._upstream, _reason(error)).inc()
            raise
        self._count(write, written.status)
        return written

    def _count(self, write: Write, status: int) -> None:
        self._metrics.writes.labels(self._upstream, write.method, str(status)).inc()


def _reason(error: Unavailable) -> str:
    if isinstance(error, TimedOut):
        return "timed_out"
    return "unreachable" if isinstance(error, Unreachable) else "useless"
