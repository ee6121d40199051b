"""A body that goes on where its upstream broke off."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer, IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from ..interfaces import IContent
from ..oci.errors import Unreachable

PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each further attempt."""


@implementer(IContent)
class Resumed:
    """A content whose rest is asked for again when it breaks off.

    :param reopen: given how many bytes have come, opens the content from there on; fails with a
        ``RegistryError`` where that cannot be had.
    """

    def __init__(
        self, content: IContent, reopen: Callable[[int], Awaitable[IContent]], clock: IReactorTime
    ) -> None:
        self.descriptor = content.descriptor
        self._content = content
        self._reopen = reopen
        self._clock = clock

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IContent``."""
        return Deferred.fromCoroutine(self._deliver(_Counting(consumer)))

    def discard(self) -> None:
        """See ``IContent``."""
        self._content.discard()

    async def _deliver(self, counting: _Counting) -> None:
        content: IContent | None = self._content
        pauses = iter(PAUSES)
        try:
            while True:
                try:
                    if content is None:
                        content = await self._reopen(counting.count)
                    return await content.deliver(counting)
                except Unreachable:
                    pause, content = next(pauses, None), None
                    if pause is None or counting.stopped:
                        raise
                    await deferLater(self._clock, pause)
                    if counting.stopped:
                        raise
        finally:
            counting.finish()


@implementer(IConsumer, IPushProducer)
class _Counting:
    """Counts what passes; to the consumer it is one producer, whichever body is being read."""

    def __init__(self, consumer: IConsumer) -> None:
        self.count = 0
        self.stopped = False
        self._consumer = consumer
        self._producer: IPushProducer | None = None
        self._paused = False
        self._registered = False

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        self._producer = IPushProducer(producer)
        if not self._registered:
            self._registered = True
            self._consumer.registerProducer(self, True)
        elif self.stopped:
            self._producer.stopProducing()
        elif self._paused:
            self._producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self._producer = None

    def write(self, data: bytes) -> None:
        self.count += len(data)
        self._consumer.write(data)

    def finish(self) -> None:
        if self._registered:
            self._consumer.unregisterProducer()

    def pauseProducing(self) -> None:
        self._paused = True
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        if self._producer is not None:
            self._producer.resumeProducing()

    def stopProducing(self) -> None:
        self.stopped = True
        if self._producer is not None:
            self._producer.stopProducing()
