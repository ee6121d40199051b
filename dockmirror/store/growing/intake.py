"""What an upstream sends, on its way into a growing file."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer
from zope.interface import implementer

from ...interfaces import IContent
from ..reader import FileReader
from .arrival import Arrival
from .hashing import STEP, Hashing
from .means import Means
from .partial import Partial
from .stop import Stop
from .writer import Writer

BEHIND = 64 * 1024 * 1024
"""How many bytes may have come and not be written and hashed yet, before the upstream has to wait."""


class TooMuch(Exception):
    """The upstream sends more than it has told."""


@implementer(IConsumer)
class Intake:
    """Writes each piece as it comes, has it hashed, and tells the readers.

    :ivar receiving: whether something is being sent.
    """

    def __init__(
        self,
        arrival: Arrival,
        partial: Partial,
        file: FileReader,
        hashing: Hashing,
        stop: Stop,
        means: Means,
    ) -> None:
        self.receiving = False
        self._arrival = arrival
        self._hashing = hashing
        self._stop = stop
        self._grown: Callable[[int], None] = means.grown
        self._writer = Writer(partial, file, arrival.length, means.clock, self._grew, stop.call_off)
        self._producer: IPushProducer | None = None
        self._paused = False
        self._hashes = False

    async def receive(self, content: IContent) -> None:
        """Takes all of a content; stops taking it at the first thing that goes wrong.

        Nothing is being written any more when it ends: another may fill the file then.

        :raises RegistryError: as the content's delivery fails.
        :raises TooMuch: when it is longer than the blob.
        :raises OSError: when the disk takes nothing.
        """
        self.receiving = True
        try:
            await self._stop.wait(lambda: content.deliver(self))
        finally:
            await self._writer.flushed()
            self.receiving = False
        self._stop.check()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``; the upstream waits where it is far ahead of the disk, or of the hash."""
        self._producer, self._paused = IPushProducer(producer), False

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._producer = None

    def write(self, data: bytes) -> None:
        """See ``IConsumer``; it raises nothing into the upstream's connection."""
        if not self._stop.called_off:
            try:
                self._write(data)
            except (TooMuch, OSError) as error:
                self._stop.call_off(error)

    def _write(self, data: bytes) -> None:
        writer, size = self._writer, self._arrival.size
        if size is not None and writer.length + writer.waiting + len(data) > size:
            raise TooMuch
        writer.write(data)
        self._pace()

    def _grew(self) -> None:
        length = self._writer.length
        if not self._hashes and self._step_behind:
            Deferred.fromCoroutine(self._hash())
        self._grown(length - self._arrival.length)
        self._arrival.grew(length)
        self._pace()

    @property
    def _step_behind(self) -> bool:
        return self._writer.length - self._hashing.hashed >= STEP

    async def _hash(self) -> None:
        """Keeps close behind; the last bytes are hashed when they are all there."""
        self._hashes = True
        try:
            while self._step_behind:
                await self._hashing.catch_up(self._hashing.hashed + STEP)
                self._pace()
        except OSError as error:
            self._stop.call_off(error)
        finally:
            self._hashes = False

    def _pace(self) -> None:
        behind = self._writer.length + self._writer.waiting - self._hashing.hashed
        if self._producer is None:
            return
        if not self._paused and behind > BEHIND:
            self._paused = True
            self._producer.pauseProducing()
        elif self._paused and behind <= BEHIND // 2:
            self._paused = False
            self._producer.resumeProducing()
