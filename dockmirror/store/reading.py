"""Bytes from a file to a consumer, at its pace and never in the reactor's way."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Sequence
from errno import EBADF
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IReactorTime
from zope.interface import implementer

from ..interfaces import IContent
from ..oci.descriptor import Descriptor
from ..oci.errors import Unavailable
from ..oci.ranges import ContentRange
from .pace import Pace
from .threads import InThread, detached

PIECE = 256 * 1024
"""How many bytes of a file are read, and held, at a time."""


class FileReader:
    """An open file that is read from the page cache at once, and from the disk in a thread."""

    def __init__(self, file: int, in_thread: InThread) -> None:
        self._file = file
        self._in_thread = in_thread
        self._reads = 0
        self._closed = False

    def at_hand(self, offset: int, length: int) -> bytes | None:
        """What can be had without waiting, perhaps a beginning of it.

        None where that is nothing, or where the file system cannot tell.
        """
        if self._closed:
            return None
        buffer = bytearray(length)
        try:
            count = os.preadv(self._file, [buffer], offset, os.RWF_NOWAIT)
        except OSError:
            return None
        return bytes(memoryview(buffer)[:count])

    async def read(self, offset: int, length: int) -> bytes:
        """These bytes, fewer at the file's end.

        :raises OSError: when the disk does not give them, or the file has been given back.
        """
        if self._closed:
            raise OSError(EBADF, os.strerror(EBADF))
        self._reads += 1
        reading = self._in_thread(partial(os.pread, self._file, length, offset))
        return await detached(self._counted(reading), late=lambda _: None)

    def close(self) -> None:
        """Gives the file back, as soon as no thread reads it any more."""
        if not self._closed:
            self._closed = True
            self._give_back()

    async def _counted(self, reading: Awaitable[bytes]) -> bytes:
        try:
            return await reading
        finally:
            self._reads -= 1
            if self._closed:
                self._give_back()

    def _give_back(self) -> None:
        if self._reads:
            return
        if os.fstat(self._file).st_nlink:
            os.close(self._file)
        else:  # evicted: its bytes are freed now, which takes a disk a while
            detached(self._in_thread(partial(os.close, self._file)), late=lambda _: None)


@implementer(IContent)
class FileContent:
    """Parts of a file, and bytes between them; a file that was cut short since it was opened is cut off."""

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
        """See ``IContent``."""
        pace = Pace(consumer, self._clock, self._reader.close)
        return pace.follow(self._deliver(pace))

    def discard(self) -> None:
        """See ``IContent``."""
        self._reader.close()

    async def _deliver(self, pace: Pace) -> None:
        if sum(map(_length, self._segments)) > PIECE:
            pace.register()
        for segment in self._segments:
            if isinstance(segment, bytes):
                await pace.ready()
                pace.write(segment)
            else:
                await self._deliver_part(pace, segment)

    async def _deliver_part(self, pace: Pace, part: ContentRange) -> None:
        offset = part.first
        while offset <= part.last:
            await pace.ready()
            piece = await self._piece(pace, offset, min(PIECE, part.last + 1 - offset))
            if not piece:
                raise Unavailable("the stored content is shorter than it was")
            await pace.ready()  # it may have been paused while a thread read
            pace.write(piece)
            offset += len(piece)

    async def _piece(self, pace: Pace, offset: int, length: int) -> bytes:
        piece = self._reader.at_hand(offset, length)
        if piece is not None:
            return piece
        pace.register()
        try:
            return await self._reader.read(offset, length)
        except OSError as error:
            raise Unavailable("the stored content cannot be read") from error


def _length(segment: bytes | ContentRange) -> int:
    return len(segment) if isinstance(segment, bytes) else segment.length
