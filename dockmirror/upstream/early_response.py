"""Answers that come before a request was sent to its end.

Twisted's client gives nobody a response before it has sent the whole request, unless all of the response has
come by then.  An upstream that refuses a layer at its first byte would have all of it sent.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IConsumer
from twisted.internet.protocol import Factory
from twisted.web._newclient import HTTP11ClientProtocol
from twisted.web.client import HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from .body_producer import RequestBodyProducer


class EarlyResponseProtocol(HTTP11ClientProtocol):
    """Gives out a response as soon as its headers are there, and sends no more of the request then."""

    def request(self, request: Any) -> Deferred[IResponse]:
        """See ``HTTP11ClientProtocol``."""
        finished = super().request(request)
        if self._state == "TRANSMITTING" and self._responseDeferred is not None:
            self._responseDeferred.addCallback(self._answered, request, finished)
        return finished

    def _answered(self, response: IResponse, request: Any, finished: Deferred[IResponse]) -> IResponse:
        whole = self._state == "TRANSMITTING_AFTER_RECEIVING_RESPONSE"
        if self._state == "TRANSMITTING" or whole:
            request.stopWriting()
            cast(IConsumer, self.transport).unregisterProducer()
        if self._state == "TRANSMITTING":
            self._state = "WAITING"  # for the rest of the response
            request.persistent = False
            finished.callback(response)
        return response


class _EarlyResponseFactory(Factory):
    noisy = False

    def __init__(self, quiescent: Any, _: object) -> None:
        self._quiescent = quiescent

    def buildProtocol(self, addr: IAddress | None) -> EarlyResponseProtocol:
        return EarlyResponseProtocol(self._quiescent)


class UnpooledConnections(HTTPConnectionPool):
    """Keeps no connection, so that none is old: what is sent while it comes cannot be sent again."""

    _factory = _EarlyResponseFactory  # type: ignore[assignment]  # it is built and used like Twisted's own

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor, persistent=False)


@implementer(IAgent)
class UploadAgent:
    """Sends contents by connections of their own.

    :param sending: an agent over ``UnpooledConnections``.
    """

    def __init__(self, agent: IAgent, sending: IAgent) -> None:
        self._agent = agent
        self._sending = sending

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """See ``IAgent``."""
        agent = self._sending if isinstance(bodyProducer, RequestBodyProducer) else self._agent
        return agent.request(method, uri, headers, bodyProducer)
