"""What an upstream sends, on its way into a growing file."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IConsumer, IProducer
from zope.interface import implementer

from ...interfaces import IContent
from .arrival import Arrival
from .hashing import Hashing
from .partial import Partial
from .stop import Stop


class TooMuch(Exception):
    """The upstream sends more than it has told."""


@implementer(IConsumer)
class Intake:
    """Writes each piece to the page cache as it comes, has it hashed, and tells the readers.

    :ivar receiving: whether something is being sent.
    :param grown: is told how many bytes were written.
    """

    def __init__(
        self,
        arrival: Arrival,
        partial: Partial,
        hashing: Hashing,
        stop: Stop,
        grown: Callable[[int], None],
    ) -> None:
        self.receiving = False
        self._arrival = arrival
        self._partial = partial
        self._hashing = hashing
        self._stop = stop
        self._grown = grown

    async def receive(self, content: IContent) -> None:
        """Takes all of a content; stops taking it at the first thing that goes wrong.

        :raises RegistryError: as the content's delivery fails.
        :raises TooMuch: when it is longer than the blob.
        :raises OSError: when the disk takes nothing.
        """
        self.receiving = True
        try:
            await self._stop.wait(lambda: content.deliver(self))
        finally:
            self.receiving = False
        self._stop.check()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """The upstream sets the pace: what comes is written."""

    def unregisterProducer(self) -> None:
        """See ``registerProducer``."""

    def write(self, data: bytes) -> None:
        """See ``IConsumer``; it raises nothing into the upstream's connection."""
        if not self._stop.called_off:
            try:
                self._write(data)
            except (TooMuch, OSError) as error:
                self._stop.call_off(error)

    def _write(self, data: bytes) -> None:
        length, size = self._arrival.length + len(data), self._arrival.size
        if size is not None and length > size:
            raise TooMuch
        self._partial.write(data, self._arrival.length)
        self._hashing.update(data)
        self._grown(len(data))
        self._arrival.grew(length)
