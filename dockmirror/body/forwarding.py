"""A consumer in front of another."""

from __future__ import annotations

from twisted.internet.interfaces import IConsumer, IProducer
from zope.interface import implementer


@implementer(IConsumer)
class ForwardingConsumer:
    """Passes everything on; what stands between a content and its consumer begins here."""

    def __init__(self, consumer: IConsumer) -> None:
        self.consumer = consumer

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``."""
        self.consumer.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self.consumer.unregisterProducer()

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        self.consumer.write(data)
