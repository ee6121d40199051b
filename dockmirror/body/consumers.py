"""Consumers that stand between a body and the consumer it is delivered to."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer
from zope.interface import implementer

from ..interfaces import IBody


@implementer(IConsumer)
class ForwardingConsumer:
    """Passes everything on to another consumer: the base of all that stands in between."""

    def __init__(self, consumer: IConsumer) -> None:
        self.consumer = consumer

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        self.consumer.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self.consumer.unregisterProducer()

    def write(self, data: bytes) -> None:
        self.consumer.write(data)


class EarlyStopConsumer(ForwardingConsumer):
    """Passes on as much of a body as is wanted, and cancels the delivery then.

    :ivar satisfied: True once nothing more is wanted.
    """

    def __init__(self, consumer: IConsumer) -> None:
        super().__init__(consumer)
        self.satisfied = False
        self._delivery: Deferred[None] | None = None

    def forward(self, body: IBody) -> Deferred[None]:
        """Deliver the body here; fails with ``CancelledError`` if it is cancelled before its end."""
        self._delivery = body.deliver(self)
        self._stop_if_satisfied()
        return self._delivery

    def forward_piece(self, data: bytes) -> None:
        """Pass on what is wanted of a piece, and set ``satisfied``; implemented by subclasses."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Pass on the data, and cancel the delivery once satisfied.

        A body that writes from a coroutine is not stopped while it runs: it goes on to its next ``await``,
        so the delivery is cancelled again with each further write.
        """
        if not self.satisfied:
            self.forward_piece(data)
        self._stop_if_satisfied()

    def _stop_if_satisfied(self) -> None:
        if self.satisfied and self._delivery is not None:
            self._delivery.cancel()


@implementer(IPushProducer)
class ProducerSwitch:
    """Passes a consumer's back-pressure on to producers that follow one another.

    :ivar paused: True while the consumer takes nothing.
    :ivar stopped: True once the consumer takes nothing any more.
    """

    def __init__(self) -> None:
        self.paused = False
        self.stopped = False
        self._producer: IPushProducer | None = None

    def begin(self, producer: IProducer) -> None:
        """Take the next producer, which is paused or stopped at once where the consumer has asked for it."""
        self._producer = IPushProducer(producer)
        if self.stopped:
            self._producer.stopProducing()
        elif self.paused:
            self._producer.pauseProducing()

    def end(self) -> None:
        """Let go of the producer that has ended."""
        self._producer = None

    def pauseProducing(self) -> None:
        self.paused = True
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self.paused = False
        if self._producer is not None:
            self._producer.resumeProducing()

    def stopProducing(self) -> None:
        self.stopped = True
        if self._producer is not None:
            self._producer.stopProducing()


@implementer(IConsumer)
class SequentialConsumer:
    """Delivers several bodies one after another to a consumer, as if they were one.

    :ivar count: bytes that were delivered.
    """

    def __init__(self, consumer: IConsumer) -> None:
        self.count = 0
        self._consumer = consumer
        self._switch = ProducerSwitch()
        self._registered = False

    @property
    def stopped(self) -> bool:
        return self._switch.stopped

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """The back-pressure of the consumer holds for each producer."""
        self._switch.begin(producer)
        if not self._registered:
            self._registered = True
            self._consumer.registerProducer(self._switch, True)

    def unregisterProducer(self) -> None:
        """The consumer stays registered, since more may come."""
        self._switch.end()

    def write(self, data: bytes) -> None:
        self.count += len(data)
        self._consumer.write(data)

    def finish(self) -> None:
        """Unregister from the consumer after the last body."""
        if self._registered:
            self._consumer.unregisterProducer()
