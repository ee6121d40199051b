"""An upstream's bytes on their way into a partial file."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer
from zope.interface import implementer

from ...concurrency.interrupt import Interrupt
from ...interfaces import IBody
from ..writer import HASH_STEP, AsyncFileWriter, BackgroundHasher
from .context import DownloadContext
from .partial_file import PartialFile
from .progress import DownloadProgress

MAX_BEHIND = 64 * 1024 * 1024
"""Bytes that may have come and not be written and hashed yet, before the upstream has to wait."""


class TooLong(Exception):
    """The upstream sends more than it has announced."""


@implementer(IConsumer)
@define(eq=False)
class IngestConsumer:
    """Writes what an upstream sends, has it hashed, and tells the readers.

    The upstream waits when it is far ahead of the disk, or of the hash.

    :ivar is_receiving: a content is being delivered.
    """

    _progress: DownloadProgress
    _partial_file: PartialFile
    _hasher: BackgroundHasher
    _interrupt: Interrupt
    _context: DownloadContext
    is_receiving: bool = field(default=False, init=False)
    _writer: AsyncFileWriter = field(init=False)
    _producer: IPushProducer | None = field(default=None, init=False)
    _is_paused: bool = field(default=False, init=False)
    _is_hashing: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        write, file, clock = self._partial_file.write, self._hasher.file, self._context.clock
        length, fail = self._progress.length, self._interrupt.set
        self._writer = AsyncFileWriter(write, file, length, clock, self._grew, fail)

    async def receive(self, content: IBody) -> None:
        """Take all of a content, or stop at the first thing that goes wrong.

        When this ends nothing is being written any more: another process may go on with the file then.

        :raises TooLong: when it is longer than the blob.
        :raises OSError: when the disk does not take it.
        """
        self.is_receiving = True
        try:
            await self._interrupt.wait(lambda: content.deliver(self))
        finally:
            await self._writer.flushed()
            self.is_receiving = False
        self._interrupt.check()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        self._producer, self._is_paused = IPushProducer(producer), False

    def unregisterProducer(self) -> None:
        self._producer = None

    def write(self, data: bytes) -> None:
        """Take the next bytes; raise nothing into the upstream's connection."""
        size = self._progress.size
        if self._interrupt.reason is not None:
            return
        try:
            if size is not None and self._taken + len(data) > size:
                raise TooLong
            self._writer.write(data)
            self._adjust_pace()
        except (TooLong, OSError) as error:
            self._interrupt.set(error)

    @property
    def _taken(self) -> int:
        return self._writer.length + self._writer.pending

    def _grew(self) -> None:
        length = self._writer.length
        if not self._is_hashing and length - self._hasher.hashed >= HASH_STEP:
            Deferred.fromCoroutine(self._hash())
        self._context.written(length - self._progress.length)
        self._progress.grew(length)
        self._adjust_pace()

    async def _hash(self) -> None:
        """Keep close behind the writer; the last bytes are hashed when all are there."""
        self._is_hashing = True
        try:
            while self._writer.length - self._hasher.hashed >= HASH_STEP:
                await self._hasher.catch_up(self._hasher.hashed + HASH_STEP)
                self._adjust_pace()
        except OSError as error:
            self._interrupt.set(error)
        finally:
            self._is_hashing = False

    def _adjust_pace(self) -> None:
        behind = self._taken - self._hasher.hashed
        if self._producer is None:
            return
        if not self._is_paused and behind > MAX_BEHIND:
            self._is_paused = True
            self._producer.pauseProducing()
        elif self._is_paused and behind <= MAX_BEHIND // 2:
            self._is_paused = False
            self._producer.resumeProducing()
