"""Requests with a body to an upstream, and connections on which a response may come early.

Twisted's client delivers a response only after the whole request was sent, unless the whole response has
arrived by then.  To an upstream that rejects a layer at its first byte it would send all of the layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from attrs import define
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IConsumer,
    IDelayedCall,
    IProducer,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import ClientFactory, Factory
from twisted.internet.tcp import Client, Connector
from twisted.python.failure import Failure
from twisted.web._newclient import HTTP11ClientProtocol
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.errors import RegistryError, TimedOut
from .upstream_client import (
    FAILURES,
    Header,
    UpstreamClient,
    find_root_cause,
    is_connection_lost,
    make_headers,
)


@implementer(IBodyProducer)
class RequestBodyProducer:
    """Sends a body at the pace of the slower side.

    :param timeouts: seconds in which the upstream must accept some bytes, and in which it must respond to a
        complete body.
    :param on_timeout: called with the seconds that were exceeded.
    :param on_sent: called with the size of each piece that was sent.
    :ivar is_started: True if any of the body was consumed; it cannot be sent again then.
    """

    def __init__(
        self,
        body: IBody,
        clock: IReactorTime,
        timeouts: tuple[float, float],
        on_timeout: Callable[[float], None],
        on_sent: Callable[[int], None],
    ) -> None:
        size = body.descriptor.size
        self.length = UNKNOWN_LENGTH if size is None else size
        self.is_started = False
        self._body = body
        self._clock = clock
        self._accept_timeout, self._response_timeout = timeouts
        self._on_timeout = on_timeout
        self._on_sent = on_sent
        self._producer: IPushProducer | None = None
        self._paused = False
        self._stopped = False
        self._deadline: IDelayedCall | None = None
        self._delivery: Deferred[None] | None = None
        self._done: Deferred[None] = Deferred(lambda _: self.stopProducing())

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        if not self._stopped:
            self.is_started = True
            self._delivery = self._body.deliver(_TransportConsumer(consumer, self))
            self._delivery.addCallbacks(self._finish, self._fail)
        return self._done

    def pauseProducing(self) -> None:
        self._paused = True
        self._set_deadline(self._accept_timeout)
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        self._set_deadline(None)
        if self._producer is not None:
            self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """Stop for good, without firing the Deferred."""
        self._stopped = True
        self.stop_waiting()
        if self._delivery is not None:
            self._delivery.cancel()

    def stop_waiting(self) -> None:
        """Cancel the pending timeout."""
        self._set_deadline(None)

    def set_producer(self, producer: IPushProducer | None) -> None:
        """Set the producer of the body; None when it has finished."""
        self._producer = producer
        if producer is not None and self._paused:
            producer.pauseProducing()

    def report_sent(self, data: bytes) -> None:
        self._on_sent(len(data))

    def _finish(self, _: None) -> None:
        if not self._stopped:
            self._set_deadline(self._response_timeout)
            self._done.callback(None)

    def _fail(self, failure: Failure) -> None:
        if not self._stopped:
            self.stop_waiting()
            self._done.errback(failure)

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = (
            None if seconds is None else self._clock.callLater(seconds, self._on_timeout, seconds)
        )


@implementer(IConsumer)
class _TransportConsumer:
    """Takes a body on behalf of a transport, which already has a producer: the ``RequestBodyProducer``."""

    def __init__(self, consumer: IConsumer, owner: RequestBodyProducer) -> None:
        self._consumer = consumer
        self._owner = owner

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        self._owner.set_producer(cast(IPushProducer, producer))

    def unregisterProducer(self) -> None:
        self._owner.set_producer(None)

    def write(self, data: bytes) -> None:
        self._owner.report_sent(data)
        self._consumer.write(data)


class EarlyResponseProtocol(HTTP11ClientProtocol):
    """Delivers a response as soon as its headers have arrived, and then stops sending the request."""

    def request(self, request: Any) -> Deferred[IResponse]:
        finished = super().request(request)
        if self._state == "TRANSMITTING" and self._responseDeferred is not None:
            self._responseDeferred.addCallback(self._stop_sending, request, finished)
        return finished

    def _stop_sending(self, response: IResponse, request: Any, finished: Deferred[IResponse]) -> IResponse:
        is_response_complete = self._state == "TRANSMITTING_AFTER_RECEIVING_RESPONSE"
        if self._state == "TRANSMITTING" or is_response_complete:
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
    """A pool that keeps no connection: a streamed body could not be sent again if a kept one had died."""

    _factory = _EarlyResponseFactory  # type: ignore[assignment]  # it is built and used like Twisted's own

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor, persistent=False)


class DrainingClient(Client):
    """A TCP connection that reads what it has received when a write fails.

    A server that rejects a body responds and closes the connection; the next write fails although the
    response has been received.  Twisted's own connection would close without reading it.
    """

    def writeSomeData(self, data: bytes) -> int | ConnectionLost:
        written = super().writeSomeData(data)
        if isinstance(written, ConnectionLost):
            while received := self._receive():
                self.protocol.dataReceived(received)
        return written

    def _receive(self) -> bytes:
        """Return some received bytes; none if there are no more."""
        try:
            return bytes(self.socket.recv(self.bufferSize))
        except OSError:
            return b""


class _DrainingConnector(Connector):
    def _makeTransport(self) -> Client:
        return DrainingClient(self.host, self.port, self.bindAddress, self, self.reactor)


class DrainingTCP:
    """Opens a ``DrainingClient`` where ``IReactorTCP.connectTCP`` opens Twisted's connection."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        timeout: float = 30.0,
        bindAddress: tuple[str, int] | None = None,
    ) -> IConnector:
        connector = _DrainingConnector(host, port, factory, timeout, bindAddress, self._reactor)
        connector.connect()
        return connector


COMMIT_TIMEOUT = 300.0
"""The least seconds in which an upstream must respond to a complete blob, which it may verify first."""


@define(eq=False)
class UploadClient:
    """Uploads bodies to the servers of one upstream.

    :param client: translates failures into errors.
    :param timeout: seconds in which a server must accept some bytes, or respond.
    :param on_sent: called with the size of each piece that was sent.
    """

    _agent: IAgent
    _client: UpstreamClient
    _clock: IReactorTime
    _timeout: float
    _on_sent: Callable[[int], None]

    async def upload(
        self, method: str, url: str, headers: tuple[Header, ...], body: IBody
    ) -> tuple[IResponse, bool]:
        """Return the response, and whether any of the body was consumed.

        A request without a body is retried once if its connection died.
        """
        has_body = body.descriptor.size != 0
        is_last_attempt = has_body
        commit_timeout = max(self._timeout, COMMIT_TIMEOUT)
        while True:
            upload_timeout = _UploadTimeout()
            producer = None
            response_timeout: float | None = commit_timeout if method == "PUT" else self._timeout
            if has_body:
                timeouts, response_timeout = (self._timeout, commit_timeout), None
                producer = RequestBodyProducer(
                    body, self._clock, timeouts, upload_timeout.expire, self._on_sent
                )
            try:
                response = await upload_timeout.watch(
                    self._agent.request(method.encode(), url.encode(), make_headers(headers), producer),
                    self._clock,
                    response_timeout,
                )
            except FAILURES as failure:
                cause = find_root_cause(failure)
                if upload_timeout.seconds is not None:
                    seconds = f"{upload_timeout.seconds:g} s"
                    raise TimedOut(f"the upstream did not accept the request within {seconds}") from failure
                if isinstance(cause, CancelledError):
                    raise CancelledError from failure
                if isinstance(cause, RegistryError):
                    raise cause from failure
                if is_last_attempt or not is_connection_lost(failure):
                    raise self._client.translate_failure(url, failure) from failure
                is_last_attempt = True
            else:
                return response, producer is not None and producer.is_started
            finally:
                if producer is not None:
                    producer.stop_waiting()


class _UploadTimeout:
    """A timeout that cancels a request and remembers why.

    :ivar seconds: the time that was exceeded; None until then.
    """

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._responding: Deferred[IResponse] | None = None

    def watch(
        self, responding: Deferred[IResponse], clock: IReactorTime, timeout: float | None
    ) -> Deferred[IResponse]:
        """Watch a request until it has a response.

        :param timeout: seconds; None for a request with a body, which sets its own deadlines.
        """
        self._responding = responding
        if timeout is not None:
            deadline = clock.callLater(timeout, self.expire, timeout)

            def stop_timer(result: object) -> object:
                if deadline.active():
                    deadline.cancel()
                return result

            responding.addBoth(stop_timer)
        return responding

    def expire(self, seconds: float) -> None:
        """Cancel the request."""
        self.seconds = seconds
        assert self._responding is not None
        self._responding.cancel()
