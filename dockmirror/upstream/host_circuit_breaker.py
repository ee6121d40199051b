"""Servers that cannot be connected to are left alone for a moment, each by itself."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from attrs import frozen
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectBindError, ConnectError, DNSLookupError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from ..concurrency.ttl_cache import TTLCache

FIRST, LONGEST = 1.0, 30.0
"""Seconds of rest after the first failure, doubled with each that follows it up to the longest.

The first is short: who goes on with a body that broke off tries again in less than two.
"""
_MOST = 1000


@frozen
class _OpenHostCircuit:
    until: float
    length: float
    error: BaseException


@implementer(IAgent)
class HostCircuitBreaker:
    """Fails at once as it failed just now, instead of letting everybody wait for the same.

    A server is known by scheme, host and port: that a token service is down, or the host of the blobs, keeps
    nobody from the registry.  What fails after a connection was made is not counted here.
    """

    def __init__(self, agent: IAgent, clock: IReactorTime) -> None:
        self._agent = agent
        self._clock = clock
        self._rests: TTLCache[tuple[bytes, bytes], _OpenHostCircuit] = TTLCache(clock, _MOST)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """See ``IAgent``."""
        parts = urlsplit(uri)
        server = parts.scheme, parts.netloc
        rest = self._rests.get(server)
        if rest is not None and self._clock.seconds() < rest.until:
            return fail(rest.error.with_traceback(None))  # else it would grow each time
        asked: Deferred[Any] = self._agent.request(method, uri, headers, bodyProducer)
        return asked.addCallbacks(self._answered, self._failed, callbackArgs=(server,), errbackArgs=(server,))

    def _answered(self, response: IResponse, server: tuple[bytes, bytes]) -> IResponse:
        self._rests.drop(server)
        return response

    def _failed(self, failure: Failure, server: tuple[bytes, bytes]) -> Failure:
        """Failures while it rests already were asked before the first; ours say nothing of the server."""
        now, before = self._clock.seconds(), self._rests.get(server)
        if failure.check(ConnectError, DNSLookupError) and not failure.check(ConnectBindError):
            length = FIRST
            if before is not None:
                length = before.length if now < before.until else min(LONGEST, before.length * 2)
            assert failure.value is not None
            rest = _OpenHostCircuit(now + length, length, failure.value)
            self._rests.put(server, rest, length + LONGEST)
        return failure
