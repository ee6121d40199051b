"""A growing file's bytes on their way to one consumer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IDelayedCall, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ...oci.errors import Unavailable
from ..reading import PIECE, FileReader


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
    """Moves what may be read from the page cache to a consumer, a piece in each turn of the reactor.

    It rests while it is paused, while there is nothing to be read, and while it is busy: a thread reads
    for it, or the consumer is being written to.
    """

    def __init__(self, reach: Reach, consumer: IConsumer, clock: IReactorTime) -> None:
        self._reach = reach
        self._consumer = consumer
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
            self._read()
        else:
            self._reach.wait()

    def _read(self) -> None:
        file = self._reach.file
        if file is None:
            return
        length = min(PIECE, self._reach.reach - self._position)
        piece = file.at_hand(self._position, length)
        if piece is None:
            self._busy = True
            reading = Deferred.fromCoroutine(file.read(self._position, length))
            reading.addCallbacks(self._arrived, self._unreadable, callbackArgs=(file,))
        else:
            self._write(piece)

    def _arrived(self, piece: bytes, file: FileReader) -> None:
        """A thread has read it; what is not wanted now is read again from the page cache, when it is."""
        self._busy = False
        if file is self._reach.file and not (self._ended or self._paused or self._reach.failure):
            self._write(piece)
        else:
            self._go_on()

    def _unreadable(self, failure: Failure) -> None:
        failure.trap(OSError)
        error = Unavailable("the growing file cannot be read")
        error.__cause__ = failure.value
        self._end(error)

    def _write(self, piece: bytes) -> None:
        if not piece:
            self._end(Unavailable("the growing file is shorter than it was"))
            return
        self._position += len(piece)
        self._reach.given = self._busy = True
        try:
            self._consumer.write(piece)
        except Exception as error:  # of this consumer alone: whoever fills the file must not see it
            self._end(error)
        self._busy = False
        if self._position < self._reach.reach and not (self._paused or self._ended):
            self._turn = self._clock.callLater(0, self._next)
        else:
            self._go_on()

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


def _nothing() -> None:
    """Nobody is to be told any more."""
