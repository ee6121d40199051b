"""A response body that is read from a file without blocking the reactor."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IReactorTime
from zope.interface import implementer

from ..interfaces import IBody, IFileConsumer
from ..oci.descriptor import Descriptor
from ..oci.ranges import ContentRange
from .coroutine_producer import CoroutineProducer
from .file_reader import PIECE, FileReader
from .transfer import CopyTransfer, ITransfer, SendfileTransfer


@implementer(IBody)
class FileBody:
    """Ranges of a file with bytes between them; the delivery fails if the file has become shorter."""

    def __init__(
        self,
        reader: FileReader,
        descriptor: Descriptor,
        segments: Sequence[bytes | ContentRange],
        clock: IReactorTime,
    ) -> None:
        self.descriptor = descriptor
        self._reader = reader
        self._segments = segments
        self._clock = clock

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Deliver the body; small ones are written at once so that they share a packet with the head."""
        large = sum(map(_length, self._segments)) > PIECE
        pace = CoroutineProducer(consumer, self._clock, self._reader.close)
        moving: ITransfer = CopyTransfer(pace.write)
        if large and IFileConsumer.providedBy(consumer):
            moving = SendfileTransfer(pace.send_file)
        return pace.follow(self._deliver(pace, moving, large))

    def discard(self) -> None:
        self._reader.close()

    async def _deliver(self, pace: CoroutineProducer, moving: ITransfer, large: bool) -> None:
        if large:
            pace.register()
        for segment in self._segments:
            if isinstance(segment, bytes):
                await pace.ready()
                pace.write(segment)
            else:
                await self._deliver_part(pace, moving, segment)

    async def _deliver_part(self, pace: CoroutineProducer, moving: ITransfer, part: ContentRange) -> None:
        offset = part.first
        while offset <= part.last:
            await pace.ready()
            length = part.last + 1 - offset
            moved = moving.try_send(self._reader, offset, length)
            if moved is None:
                pace.register()
                move = await moving.read_then_send(self._reader, offset, length)
                await pace.ready()  # it may have been paused meanwhile
                moved = move()
            offset += moved


def _length(segment: bytes | ContentRange) -> int:
    return len(segment) if isinstance(segment, bytes) else segment.length
