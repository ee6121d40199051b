"""How many requests an upstream is asked at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from .bounded_endpoint import with_timeout


@implementer(IAgent)
class ConcurrencyLimit:
    """Lets so many requests run at a time, and the others wait in order.

    A request runs until its response's body has ended, or it has failed or been cancelled.  That bounds the
    connections that are at work as well: each carries one request.  The connections themselves are not
    counted, since those that a pool keeps would stand in the way of requests to another host.

    Whoever is given a response with a body must have it delivered; until then it runs.

    :param patience: seconds that a request may wait; then it fails with ``TimeoutError``.
    """

    def __init__(self, agent: IAgent, limit: int, clock: IReactorTime, patience: float = 30.0) -> None:
        self._agent = agent
        self._slots = DeferredSemaphore(limit)
        self._clock = clock
        self._patience = patience

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """See ``IAgent``."""
        return Deferred.fromCoroutine(self._request(method, uri, headers, bodyProducer))

    async def _request(self, *asked: Any) -> IResponse:
        what = f"waiting for one of the {self._slots.limit} requests that may run at a time to end"
        await with_timeout(self._slots.acquire(), self._patience, self._clock, what)
        try:
            response = await self._agent.request(*asked)
        except BaseException:
            self._slots.release()
            raise
        if response.length == 0:
            self._slots.release()
            return response
        running: IResponse = _CountedResponse(response, self._slots.release)
        return running


class _CountedResponse(proxyForInterface(IResponse, "_response")):  # type: ignore[misc]
    """A response that tells when its body has ended."""

    def __init__(self, response: IResponse, ended: Callable[[], None]) -> None:
        super().__init__(response)
        self._ended = ended

    def deliverBody(self, protocol: IProtocol) -> None:
        """See ``IResponse``."""
        self._response.deliverBody(_BodyEndProtocol(protocol, self._ended))


class _BodyEndProtocol(Protocol):
    """Stands before the protocol that a body is delivered to."""

    def __init__(self, protocol: IProtocol, ended: Callable[[], None]) -> None:
        self._protocol = protocol
        self._ended = ended

    def makeConnection(self, transport: Any) -> None:
        self._protocol.makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        self._protocol.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended()
        self._protocol.connectionLost(reason)
