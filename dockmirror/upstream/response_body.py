"""The body of an upstream's response as a content."""

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

IDLE = 60.0
"""Seconds in which an upstream that is being read must send something."""


@implementer(IBody)
class ResponseBody:
    """What an upstream sends, passed on as it comes."""

    def __init__(self, response: IResponse, descriptor: Descriptor, clock: IReactorTime) -> None:
        self.descriptor = descriptor
        self._response = response
        self._clock = clock

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``; an upstream that stops in the middle has ``BrokenOff``, or is ``TimedOut``."""
        passing = _BodyForwarder(consumer, self._clock)
        self._response.deliverBody(passing)
        return passing.done

    def discard(self) -> None:
        """Closes the connection: what the upstream had begun to send has no other end."""
        self._response.deliverBody(_BodyDiscarder())


class _BodyDiscarder(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


@implementer(IPushProducer)
class _BodyForwarder(Protocol):
    """Between a response and a consumer, whose pace it passes back."""

    def __init__(self, consumer: IConsumer, clock: IReactorTime) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self._give_up(None))
        self._consumer = consumer
        self._clock = clock
        self._idle: IDelayedCall | None = None
        self._ended = False

    def connectionMade(self) -> None:
        self._idle = self._clock.callLater(IDLE, self._give_up, TimedOut("the upstream stopped sending"))
        self._consumer.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        if not self._ended:
            if self._idle is not None:
                self._idle.reset(IDLE)
            self._consumer.write(data)

    def pauseProducing(self) -> None:
        self._stop_waiting()
        self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        if self._idle is None and not self._ended:
            self._idle = self._clock.callLater(IDLE, self._give_up, TimedOut("the upstream stopped sending"))
        self._transport.resumeProducing()

    def stopProducing(self) -> None:
        self._give_up(Unreachable("nobody takes the content any more"))

    def connectionLost(self, reason: Failure | None = None) -> None:
        complete = reason is not None and reason.check(ResponseDone, PotentialDataLoss)
        self._end(None if complete else BrokenOff("the upstream broke off"))

    @property
    def _transport(self) -> IPushProducer:
        assert self.transport is not None
        return IPushProducer(self.transport)

    def _give_up(self, error: Unreachable | None) -> None:
        """Ends before the upstream did; without an error, because the delivery was cancelled."""
        if not self._ended:
            self._end(error, fire=error is not None)
            assert self.transport is not None
            self.transport.loseConnection()

    def _end(self, error: Unreachable | None, fire: bool = True) -> None:
        if self._ended:
            return
        self._ended = True
        self._stop_waiting()
        self._consumer.unregisterProducer()
        if fire:
            self.done.callback(None) if error is None else self.done.errback(error)

    def _stop_waiting(self) -> None:
        if self._idle is not None and self._idle.active():
            self._idle.cancel()
        self._idle = None
