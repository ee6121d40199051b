"""Several contents to one consumer, one after another."""

from __future__ import annotations

from twisted.internet.interfaces import IConsumer, IProducer
from zope.interface import implementer

from .producer_switch import ProducerSwitch


@implementer(IConsumer)
class SequentialConsumer:
    """Counts what passes; to the consumer it is one producer, whichever content is being delivered.

    :ivar count: how many bytes have passed.
    """

    def __init__(self, consumer: IConsumer) -> None:
        self.count = 0
        self._consumer = consumer
        self._pace = ProducerSwitch()
        self._registered = False

    @property
    def stopped(self) -> bool:
        """Whether the consumer takes nothing any more."""
        return self._pace.stopped

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``; the pace that the consumer has set is the next one's as well."""
        self._pace.begin(producer)
        if not self._registered:
            self._registered = True
            self._consumer.registerProducer(self._pace, True)

    def unregisterProducer(self) -> None:
        """See ``IConsumer``; the consumer is not told, since more is to come."""
        self._pace.end()

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        self.count += len(data)
        self._consumer.write(data)

    def finish(self) -> None:
        """Nothing more comes."""
        if self._registered:
            self._consumer.unregisterProducer()
