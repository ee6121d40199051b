"""A growing file's bytes on their way to one consumer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from ...interfaces import IFileConsumer
from ...oci.errors import Unavailable
from ..moving import Moving, Sending, Writing
from ..reader import FileReader


class Reach(Protocol):
    """Up to where a reader may read which file now; see ``Growth``."""

    given: bool
    failure: Exception | None
    on_change: Callable[[], None]

    @property
    def file(self) -> FileReader | None:
        """What is read; None where there is nothing just now."""

    @property
    def first(self) -> int:
        """Where the reader begins."""

    @property
    def end(self) -> int | None:
        """Where the reader ends; None where that is not known yet."""

    @property
    def reach(self) -> int:
        """Up to where it may read now."""

    @property
    def over(self) -> bool:
        """Whether the reach will not grow."""

    def wait(self) -> None:
        """Asks for ``on_change`` to be called when the reach has grown; anything else calls it unasked."""


@implementer(IPushProducer)
class Delivery:
    """Moves what may be read to a consumer, a piece in each turn of the reactor.

    It rests while it is paused, while there is nothing to be read, and while it is busy: a thread reads
    for it, or the consumer is being given something.
    """

    def __init__(self, reach: Reach, consumer: IConsumer, clock: IReactorTime) -> None:
        self._reach = reach
        self._consumer = consumer
        self._moving = _moving_to(consumer)
        self._clock = clock
        self._position = reach.first
        self._done: Deferred[int] = Deferred(lambda _: self._end(None))
        self._paused = False
        self._busy = False
        self._turn: IDelayedCall | None = None
        self._ended = False

    def begin(self) -> Deferred[int]:
        """Fires with where it has come to, when the reader has all, or must go on by itself.

        It fails with what the reader failed with, and when the file cannot be read or the consumer
        takes nothing any more.
        """
        self._consumer.registerProducer(self, True)
        self._reach.on_change = self._go_on
        self._go_on()
        return self._done

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = True

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = False
        self._go_on()

    def stopProducing(self) -> None:
        """See ``IPushProducer``."""
        self._end(Unavailable("nobody takes the content any more"))

    def _go_on(self) -> None:
        if self._ended:
            return
        if self._reach.failure is not None:
            self._end(self._reach.failure)
        elif self._position == self._reach.end or (self._reach.over and self._position >= self._reach.reach):
            self._end(self._position)
        elif self._paused or self._busy or self._turn:
            return
        elif self._position < self._reach.reach:
            self._move()
        else:
            self._reach.wait()

    def _move(self) -> None:
        file = self._reach.file
        if file is None:
            return
        length = self._reach.reach - self._position
        if not self._moved(lambda: self._moving.at_once(file, self._position, length)):
            self._busy = True
            Deferred.fromCoroutine(self._fetch(file, length))

    async def _fetch(self, file: FileReader, length: int) -> None:
        """What is not wanted any more when it comes is read again from the page cache, when it is."""
        try:
            move = await self._moving.fetched(file, self._position, length)
        except Unavailable as error:
            self._end(error)
            return
        self._busy = False
        if file is self._reach.file and not (self._ended or self._paused or self._reach.failure):
            self._moved(move)
        else:
            self._go_on()

    def _moved(self, move: Callable[[], int | None]) -> bool:
        """False where the disk must be waited for."""
        self._busy = True
        try:
            moved = move()
        except Exception as error:  # of this consumer alone: whoever fills the file must not see it
            self._end(error)
            moved = 0
        self._busy = False
        if moved is None:
            return False
        self._position += moved
        self._reach.given = self._reach.given or moved > 0
        if self._position < self._reach.reach and not (self._paused or self._ended):
            self._turn = self._clock.callLater(0, self._next)
        else:
            self._go_on()
        return True

    def _next(self) -> None:
        self._turn = None
        self._go_on()

    def _end(self, outcome: int | Exception | None) -> None:
        """With None it is being cancelled."""
        if self._ended:
            return
        self._ended = True
        self._reach.on_change = _nothing
        if self._turn is not None:
            self._turn.cancel()
        self._consumer.unregisterProducer()
        if outcome is not None:
            self._done.callback(outcome) if isinstance(outcome, int) else self._done.errback(outcome)


def _moving_to(consumer: IConsumer) -> Moving:
    if IFileConsumer.providedBy(consumer):
        return Sending(IFileConsumer(consumer).send_file)
    return Writing(consumer.write)


def _nothing() -> None:
    """Nobody is to be told any more."""
