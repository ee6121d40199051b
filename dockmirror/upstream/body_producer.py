"""A content sent to an upstream as the body of a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IDelayedCall, IProducer, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from ..interfaces import IBody


@implementer(IBodyProducer)
class RequestBodyProducer:
    """Sends a content at the pace of the slower side.

    :param patience: seconds that the upstream may take nothing, and seconds until it answers to the whole.
    :param late: called when it takes longer.
    :param sent: is told how many bytes have gone, each time.
    :ivar begun: whether any of the content was taken; it cannot be sent again then.
    """

    def __init__(
        self,
        content: IBody,
        clock: IReactorTime,
        patience: tuple[float, float],
        late: Callable[[float], None],
        sent: Callable[[int], None],
    ) -> None:
        size = content.descriptor.size
        self.length = UNKNOWN_LENGTH if size is None else size
        self.begun = False
        self._content = content
        self._clock = clock
        self._taking, self._answering = patience
        self._late = late
        self._sent = sent
        self._producer: IPushProducer | None = None
        self._paused = False
        self._stopped = False
        self._deadline: IDelayedCall | None = None
        self._delivery: Deferred[None] | None = None
        self._done: Deferred[None] = Deferred(lambda _: self.stopProducing())

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBodyProducer``."""
        if not self._stopped:
            self.begun = True
            self._delivery = self._content.deliver(_TransportConsumer(consumer, self))
            self._delivery.addCallbacks(self._delivered, self._failed)
        return self._done

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = True
        self._wait(self._taking)
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = False
        self._wait(None)
        if self._producer is not None:
            self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """See ``IBodyProducer``: nothing more is wanted, and nothing more is told."""
        self._stopped = True
        self.end()
        if self._delivery is not None:
            self._delivery.cancel()

    def end(self) -> None:
        """There is nothing more to wait for."""
        self._wait(None)

    def taken_by(self, producer: IPushProducer | None) -> None:
        """What produces the content now."""
        self._producer = producer
        if producer is not None and self._paused:
            producer.pauseProducing()

    def taken(self, data: bytes) -> None:
        """Some of it has gone."""
        self._sent(len(data))

    def _delivered(self, _: None) -> None:
        if not self._stopped:
            self._wait(self._answering)
            self._done.callback(None)

    def _failed(self, failure: Failure) -> None:
        if not self._stopped:
            self.end()
            self._done.errback(failure)

    def _wait(self, seconds: float | None) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None if seconds is None else self._clock.callLater(seconds, self._late, seconds)


@implementer(IConsumer)
class _TransportConsumer:
    """What takes a body, in Twisted's client, has one producer already, which is the body itself."""

    def __init__(self, consumer: IConsumer, sending: RequestBodyProducer) -> None:
        self._consumer = consumer
        self._sending = sending

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        self._sending.taken_by(cast(IPushProducer, producer))

    def unregisterProducer(self) -> None:
        self._sending.taken_by(None)

    def write(self, data: bytes) -> None:
        self._sending.taken(data)
        self._consumer.write(data)
