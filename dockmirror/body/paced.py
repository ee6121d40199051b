"""Bytes that are held in memory, however many, written at the pace of their consumer."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.descriptor import Descriptor
from ..oci.errors import Unavailable

PIECE = 64 * 1024
"""Bytes that are written at once."""


@implementer(IBody, IPushProducer)
class PacedBytes:
    """A content of which no more is written than the consumer takes.

    It is delivered when the consumer would take more: so others may follow it, none of which waits.
    """

    def __init__(self, data: bytes) -> None:
        self.descriptor = Descriptor(size=len(data))
        self._data = data
        self._position = 0
        self._paused = False
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] = Deferred(lambda _: self._unregister())

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``."""
        self._consumer = consumer
        consumer.registerProducer(self, True)
        self._write()
        return self._done

    def discard(self) -> None:
        """See ``IBody``; nothing is open."""

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = True

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = False
        self._write()

    def stopProducing(self) -> None:
        """See ``IPushProducer``."""
        self._finish(Failure(Unavailable("nobody takes the content any more")))

    def _write(self) -> None:
        while self._consumer is not None and not self._paused:
            if self._position >= len(self._data):
                self._finish(None)
                return
            first, self._position = self._position, self._position + PIECE
            self._consumer.write(self._data[first : self._position])

    def _finish(self, outcome: Failure | None) -> None:
        if self._consumer is not None:
            self._unregister()
            self._done.callback(outcome)

    def _unregister(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.unregisterProducer()
