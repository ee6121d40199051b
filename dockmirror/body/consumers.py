"""Consumers and producers that stand between a body and the consumer that it is delivered to."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IDelayedCall, IProducer, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import IBody, IFileConsumer
from ..oci.errors import Unavailable

BURST = 1024 * 1024
"""Bytes after which the reactor gets a turn, even if the consumer accepts more."""


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


class _DeliveryEnded(Exception):
    """Raised in the coroutine when nothing more may be written."""


@implementer(IPushProducer)
class CoroutineProducer:
    """Lets a coroutine write to a consumer with back-pressure.

    :ivar paused: True if the consumer accepts nothing just now.
    :param release: frees what the coroutine reads from; called once, at the end.
    """

    def __init__(self, consumer: IConsumer, clock: IReactorTime, release: Callable[[], None]) -> None:
        self.paused = False
        self._consumer = consumer
        self._clock = clock
        self._release = release
        self._done: Deferred[None] = Deferred(lambda _: self._end())
        self._registered = self._ended = False
        self._burst = 0
        self._turn: IDelayedCall | None = None
        self._waiting: Deferred[None] | None = None

    def follow(self, writing: Coroutine[Any, Any, None]) -> Deferred[None]:
        """Run the coroutine; the result fires like ``IBody.deliver``.

        It may be cancelled at any time, even by the consumer during a write, and then ends at once.
        """
        Deferred.fromCoroutine(writing).addBoth(self._finish)
        return self._done

    def register(self) -> None:
        """Register with the consumer, unless that was done before."""
        if not self._registered and not self._ended:
            self._registered = True
            self._consumer.registerProducer(self, True)

    async def ready(self) -> None:
        """Wait until the consumer accepts the next piece."""
        if self._burst >= BURST and not self.paused:
            self._turn = self._clock.callLater(0, self._go_on)
            await self._wait()
        while self.paused and not self._ended:
            await self._wait()
        self._check()

    def write(self, piece: bytes) -> None:
        """Write a piece; ``ready`` must have been awaited before."""
        self._check()
        self._burst += len(piece)
        self._consumer.write(piece)
        self._check()

    def send_file(self, file: int, offset: int, length: int) -> int | None:
        """Call ``IFileConsumer.send_file`` of the consumer; ``ready`` must have been awaited before."""
        self._check()
        sent = IFileConsumer(self._consumer).send_file(file, offset, length)
        self._burst += sent or 0
        self._check()
        return sent

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        self._go_on()

    def stopProducing(self) -> None:
        self.fail(Unavailable("the consumer went away"))

    def fail(self, error: Exception) -> None:
        """End the delivery at once, paused or not."""
        self._finish(Failure(error))

    def _wait(self) -> Deferred[None]:
        self._burst = 0
        self._waiting = Deferred()
        return self._waiting

    def _go_on(self) -> None:
        """Resume the coroutine, unless the consumer has paused it again."""
        waiting = self._waiting
        if waiting is not None and (self._ended or not self.paused):
            self._waiting = None
            waiting.callback(None)

    def _check(self) -> None:
        if self._ended:
            raise _DeliveryEnded

    def _finish(self, outcome: Failure | None) -> None:
        if not self._ended:
            self._end()
            self._done.callback(outcome)

    def _end(self) -> None:
        self._ended = True
        if self._turn is not None and self._turn.active():
            self._turn.cancel()
        if self._registered:
            self._consumer.unregisterProducer()
        self._release()
        self._go_on()
