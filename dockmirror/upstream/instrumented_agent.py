"""An upstream's servers, measured: how long they take, how much they send, what they still allow."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from ..headers import first
from ..metrics import Metrics
from .body_producer import RequestBodyProducer

_QUOTA = re.compile(r"\s*([0-9]{1,12})(?![0-9])")


@implementer(IAgent)
class InstrumentedAgent:
    """Measures every response of the servers that one upstream is asked through.

    :param upstream: its name in the settings.
    :param allowed: is told what a response says of the quota: the limit, and what remains.
    """

    def __init__(
        self,
        agent: IAgent,
        upstream: str,
        metrics: Metrics,
        clock: IReactorTime,
        allowed: Callable[[int | None, int | None], None],
    ) -> None:
        self._agent = agent
        self._clock = clock
        self._upstream = upstream
        self._seconds = metrics.upstream_seconds.labels(upstream)
        self._received = metrics.received_bytes.labels(upstream)
        self._quotas = {"RateLimit-Limit": metrics.limit, "RateLimit-Remaining": metrics.remaining}
        self._allowed = allowed

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """See ``IAgent``."""
        asked = self._clock.seconds()
        answering = self._agent.request(method, uri, headers, bodyProducer)
        return answering.addCallback(
            self._answered, None if isinstance(bodyProducer, RequestBodyProducer) else asked
        )

    def _answered(self, response: IResponse, asked: float | None) -> IResponse:
        if asked is not None:  # how long a body takes says nothing of the upstream
            self._seconds.observe(self._clock.seconds() - asked)
        told = {field: parse_quota(first(response.headers, field) or "") for field in self._quotas}
        for field, number in told.items():
            if number is not None:
                self._quotas[field].labels(self._upstream).set(number)
        self._allowed(*told.values())
        if response.length == 0:
            return response
        counted: IResponse = _MeasuredResponse(response, self._received.inc)
        return counted


def parse_quota(told: str) -> int | None:
    """The number in a ``RateLimit-Limit`` or ``RateLimit-Remaining``, such as ``100;w=21600``; None without.

    Source: draft-ietf-httpapi-ratelimit-headers before its version 08, as Docker Hub writes them.
    """
    match = _QUOTA.match(told)
    return int(match[1]) if match else None


class _MeasuredResponse(proxyForInterface(IResponse, "_response")):  # type: ignore[misc]
    """A response whose body's bytes are counted."""

    def __init__(self, response: IResponse, count: Callable[[float], None]) -> None:
        super().__init__(response)
        self._count = count

    def deliverBody(self, protocol: IProtocol) -> None:
        """See ``IResponse``."""
        self._response.deliverBody(_MeasuringProtocol(protocol, self._count))


class _MeasuringProtocol(Protocol):
    """Stands before the protocol that a body is delivered to."""

    def __init__(self, protocol: IProtocol, count: Callable[[float], None]) -> None:
        self._protocol = protocol
        self._count = count

    def makeConnection(self, transport: Any) -> None:
        self._protocol.makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        self._count(len(data))
        self._protocol.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._protocol.connectionLost(reason)
