"""Several contents to one consumer, one after another."""

from __future__ import annotations

from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer
from zope.interface import implementer


@implementer(IConsumer, IPushProducer)
class Succession:
    """Counts what passes; to the consumer it is one producer, whichever content is being delivered.

    :ivar count: how many bytes have passed.
    :ivar stopped: whether the consumer takes nothing any more.
    """

    def __init__(self, consumer: IConsumer) -> None:
        self.count = 0
        self.stopped = False
        self._consumer = consumer
        self._producer: IPushProducer | None = None
        self._paused = False
        self._registered = False

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``; the pace that the consumer has set is the next one's as well."""
        self._producer = IPushProducer(producer)
        if not self._registered:
            self._registered = True
            self._consumer.registerProducer(self, True)
        elif self.stopped:
            self._producer.stopProducing()
        elif self._paused:
            self._producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """See ``IConsumer``; the consumer is not told, since more is to come."""
        self._producer = None

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        self.count += len(data)
        self._consumer.write(data)

    def finish(self) -> None:
        """Nothing more comes."""
        if self._registered:
            self._consumer.unregisterProducer()

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = True
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = False
        if self._producer is not None:
            self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """See ``IPushProducer``."""
        self.stopped = True
        if self._producer is not None:
            self._producer.stopProducing()
