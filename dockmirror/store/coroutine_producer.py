"""A push producer driven by a coroutine."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IDelayedCall, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import IFileConsumer
from ..oci.errors import Unavailable

BURST = 1024 * 1024
"""Bytes after which the reactor gets a turn, even if the consumer accepts more."""


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
