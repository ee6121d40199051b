"""The fetch that completes a partial file with bytes from the upstream."""

from __future__ import annotations

import os
from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer
from twisted.internet.task import deferLater
from zope.interface import implementer

from ...body.verified import CorruptContent, releasable_length
from ...concurrency.interrupt import Interrupt
from ...interfaces import IBody
from ...oci.digest import Digest
from ...oci.errors import RangeInvalid, RegistryError, Unavailable, Unreachable
from ..writer import HASH_STEP, AsyncFileWriter, BackgroundHasher
from .context import (
    Attempts,
    DiskFullFallback,
    DownloadContext,
    NoReaders,
    PossiblyCorrupt,
    RangeResponse,
    Rejected,
    RestartRequired,
    parse_range_response,
)
from .partial_file import PartialFile, PartialMetadata
from .progress import DownloadProgress, DownloadReader

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


@define(eq=False)
class UpstreamFetch:
    """Fetches what a partial file lacks, while its lock is held, until it is complete and verified.

    Each request is made with the source of a reader who is there.
    """

    _progress: DownloadProgress
    _partial_file: PartialFile
    _hasher: BackgroundHasher
    _interrupt: Interrupt
    _attempts: Attempts
    _context: DownloadContext
    _ingest: IngestConsumer = field(init=False)
    _was_answered: bool = field(default=False, init=False)
    _reject: Callable[[Digest], None] | None = field(default=None, init=False)  # to the last sender
    _is_mixed: bool = field(default=False, init=False)  # the bytes are not all of one response
    _is_complete: bool = field(default=False, init=False)  # as far as the upstream says

    def __attrs_post_init__(self) -> None:
        self._ingest = IngestConsumer(
            self._progress, self._partial_file, self._hasher, self._interrupt, self._context
        )

    async def run(self) -> None:
        """Fetch until the file is complete and verified.

        :raises Corrupt: when the upstream's bytes are not the blob; ``Rejected`` if their sender was told.
        :raises RestartRequired: when the blob is to be fetched from its start, into a new file.
        :raises Unreachable: when the upstream breaks off too often, or does not answer the first request.
        :raises NoReaders: when no reader is left.
        :raises OSError: when the disk fails.
        """
        if self._progress.length:
            await self._take_over()
        while not await self._is_verified():
            response = await self._request()
            if response is not None:
                await self._receive(response.content)

    @property
    def may_continue_without_readers(self) -> bool:
        """Half of the blob is there, or little is missing."""
        length, size = self._progress.length, self._progress.size
        if size is None or not self._ingest.is_receiving:
            return False
        return 2 * length >= size or size - length < self._context.finish_threshold

    async def fallback(self) -> DiskFullFallback | None:
        """Return how readers can go on by themselves, or None if it is not known what they have.

        :raises OSError: when the disk does not give what it has taken.
        """
        length, size = self._progress.length, self._progress.size
        if not self._progress.has_answer:
            return None
        await self._hasher.catch_up(length)
        start = releasable_length(length, size)
        tail = os.pread(self._partial_file.descriptor, length - start, start)
        return DiskFullFallback(self._hasher.verifier(), length, tail, size, self._context.clock)

    async def _take_over(self) -> None:
        """Hash what an earlier fetch has left; readers are given it meanwhile."""
        self._is_mixed = True
        progress, length = self._progress, self._progress.length
        metadata = self._partial_file.metadata()
        if metadata is not None:
            if metadata.is_verified:  # which is not known here
                self._partial_file.write_size(metadata.size)
            progress.answered(metadata.size)
        if progress.size is not None and length > progress.size:
            raise RestartRequired(Unavailable("more was fetched than the blob has"))
        await self._hasher.catch_up(length, lambda: bool(progress.readers))
        if self._hasher.hashed < length:
            raise NoReaders
        progress.restart_pace()
        self._is_complete = length == progress.size or await self._hasher.matches(length)

    async def _is_verified(self) -> bool:
        if not self._is_complete:
            return False
        length, size = self._progress.length, self._progress.size
        if size not in (None, length) or not await self._hasher.matches(length):
            raise self._wrong()
        return True

    def _wrong(self) -> Exception:
        if self._is_mixed and not self._attempts.were_wrong:
            return PossiblyCorrupt(Unavailable("what was fetched in parts is not the blob"))
        message = "the upstream's content is not the blob of that digest"
        if self._reject is None:
            return CorruptContent(message)
        self._reject(self._hasher.verifier().digest)
        return Rejected(message)

    async def _request(self) -> RangeResponse | None:
        """Request the rest; None if that reader was refused, or the next attempt is due."""
        reader, offset = self._first_reader(), self._progress.length
        try:
            opening = self._interrupt.wait(lambda: Deferred.fromCoroutine(reader.source.open(offset)))
            response = parse_range_response(await opening, offset)
        except RegistryError as error:
            await self._refused(reader, offset, error)
            return None
        self._was_answered = True
        reader.grant()
        self._accept(response, offset)
        return response

    async def _refused(self, reader: DownloadReader, offset: int, error: RegistryError) -> None:
        is_busy = (error.status >= 500 or error.status == 429) and not isinstance(error, CorruptContent)
        if isinstance(error, Unreachable) and not offset and not self._was_answered:
            raise error
        if isinstance(error, Unreachable) or (offset and is_busy):
            await self._retry(error)
        elif offset and (isinstance(error, RangeInvalid) or error.upstream_status == 206):
            raise RestartRequired(error) from error
        else:
            reader.fail(error)

    async def _retry(self, error: RegistryError) -> None:
        """Wait before the next attempt, or fail if there were enough."""
        self._first_reader()
        pause = next(self._attempts.pauses, None)
        if pause is None:
            raise error
        self._context.stats.resumed += 1
        await self._interrupt.wait(lambda: deferLater(self._context.clock, pause))

    def _first_reader(self) -> DownloadReader:
        if not self._progress.readers:
            raise NoReaders
        return self._progress.readers[0]

    def _accept(self, response: RangeResponse, offset: int) -> None:
        size = self._progress.size if response.size is None else response.size
        try:
            if offset and size is not None and (size < offset or self._progress.size not in (None, size)):
                raise RestartRequired(Unavailable("the upstream tells another size than before"))
            self._is_mixed, self._reject = offset > 0, response.reject
            if self._partial_file.metadata() != PartialMetadata(size):
                self._partial_file.write_size(size)
            self._progress.answered(size)
            self._interrupt.check()  # a reader who was told may have left at once
        except BaseException:
            response.content.discard()
            raise

    async def _receive(self, content: IBody) -> None:
        try:
            await self._ingest.receive(content)
        except TooLong:
            raise self._wrong() from None
        except Unreachable as error:
            if self._progress.length != self._progress.size:
                await self._retry(error)
                return
        self._is_complete = True
