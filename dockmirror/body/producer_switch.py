"""The pace that a consumer sets, for whichever producer there is."""

from __future__ import annotations

from twisted.internet.interfaces import IProducer, IPushProducer
from zope.interface import implementer


@implementer(IPushProducer)
class ProducerSwitch:
    """Told by a consumer, and tells producers that come one after another, each from its beginning.

    :ivar paused: whether nothing is to be produced for the time being.
    :ivar stopped: whether nothing is to be produced any more.
    """

    def __init__(self) -> None:
        self.paused = False
        self.stopped = False
        self._producer: IPushProducer | None = None

    def begin(self, producer: IProducer) -> None:
        """From now on it is this one."""
        self._producer = IPushProducer(producer)
        if self.stopped:
            self._producer.stopProducing()
        elif self.paused:
            self._producer.pauseProducing()

    def end(self) -> None:
        """There is none, until another one comes."""
        self._producer = None

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self.paused = True
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self.paused = False
        if self._producer is not None:
            self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """See ``IPushProducer``."""
        self.stopped = True
        if self._producer is not None:
            self._producer.stopProducing()
