"""The body of an upstream's response."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.descriptor import Descriptor
from ..oci.errors import BrokenOff, TimedOut, Unreachable

IDLE_TIMEOUT = 60.0
"""Seconds in which an upstream that is being read must send something."""


@implementer(IBody)
class ResponseBody:
    """The body of an upstream's response, passed on as it arrives."""

    def __init__(self, response: IResponse, descriptor: Descriptor, clock: IReactorTime) -> None:
        self.descriptor = descriptor
        self._response = response
        self._clock = clock

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Deliver the body; fail with ``BrokenOff`` if the connection is lost, with ``TimedOut`` if it
        stalls.
        """
        forwarder = _BodyForwarder(consumer, self._clock)
        self._response.deliverBody(forwarder)
        return forwarder.done

    def discard(self) -> None:
        """Close the connection: the upstream may be sending already, and has no other way to be stopped."""
        self._response.deliverBody(_BodyDiscarder())


class _BodyDiscarder(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


@implementer(IPushProducer)
class _BodyForwarder(Protocol):
    """A protocol between a response and a consumer, which passes the consumer's back-pressure on."""

    def __init__(self, consumer: IConsumer, clock: IReactorTime) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self._give_up(None))
        self._consumer = consumer
        self._clock = clock
        self._idle_timer: IDelayedCall | None = None
        self._has_ended = False

    def connectionMade(self) -> None:
        self._idle_timer = self._clock.callLater(
            IDLE_TIMEOUT, self._give_up, TimedOut("the upstream stopped sending")
        )
        self._consumer.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        if not self._has_ended:
            if self._idle_timer is not None:
                self._idle_timer.reset(IDLE_TIMEOUT)
            self._consumer.write(data)

    def pauseProducing(self) -> None:
        self._stop_idle_timer()
        self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        if self._idle_timer is None and not self._has_ended:
            self._idle_timer = self._clock.callLater(
                IDLE_TIMEOUT, self._give_up, TimedOut("the upstream stopped sending")
            )
        self._transport.resumeProducing()

    def stopProducing(self) -> None:
        self._give_up(Unreachable("the body is no longer needed"))

    def connectionLost(self, reason: Failure | None = None) -> None:
        complete = reason is not None and reason.check(ResponseDone, PotentialDataLoss)
        self._end(None if complete else BrokenOff("the upstream closed the connection within the body"))

    @property
    def _transport(self) -> IPushProducer:
        assert self.transport is not None
        return IPushProducer(self.transport)

    def _give_up(self, error: Unreachable | None) -> None:
        """End before the upstream did; without an error if the delivery was cancelled."""
        if not self._has_ended:
            self._end(error, fire=error is not None)
            assert self.transport is not None
            self.transport.loseConnection()

    def _end(self, error: Unreachable | None, fire: bool = True) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        self._stop_idle_timer()
        self._consumer.unregisterProducer()
        if fire:
            self.done.callback(None) if error is None else self.done.errback(error)

    def _stop_idle_timer(self) -> None:
        if self._idle_timer is not None and self._idle_timer.active():
            self._idle_timer.cancel()
        self._idle_timer = None
