"""The fetch that completes a partial file, with bytes from the upstream and blocks that ranges have left."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import deferLater
from zope.interface import implementer

from ...body.bodies import CorruptContent, Slice, releasable_length
from ...concurrency.coroutines import Interrupt, shield
from ...interfaces import IBody
from ...oci.digest import Digest
from ...oci.errors import RangeInvalid, RegistryError, Unavailable, Unreachable
from .. import layout
from ..writer import HASH_STEP, AsyncFileWriter, BackgroundHasher, BackloggedConsumer
from .block_file import BLOCK, BlockFile, BlockFileState
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

MAX_BACKLOG = 64 * 1024 * 1024
"""Bytes that may wait to be written and hashed before the upstream is paused."""
MIN_RUN = 4 * 1024 * 1024 // BLOCK
"""The shortest run of present blocks that a download skips; skipping costs another request."""


class TooLong(Exception):
    """Raised if the upstream sends more bytes than it has announced."""


@implementer(IConsumer)
@define(eq=False)
class IngestConsumer(BackloggedConsumer):
    """Writes and hashes the bytes that an upstream sends, and wakes the readers.

    The upstream is paused while it is far ahead of the disk or of the hash.

    :ivar is_receiving: a body is being delivered.
    """

    max_backlog = MAX_BACKLOG
    _progress: DownloadProgress
    _partial_file: PartialFile
    _hasher: BackgroundHasher
    _interrupt: Interrupt
    _context: DownloadContext
    is_receiving: bool = field(default=False, init=False)
    _writer: AsyncFileWriter = field(init=False)
    _is_hashing: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        write, file, clock = self._partial_file.write, self._hasher.file, self._context.clock
        length, fail = self._progress.length, self._interrupt.set
        self._writer = AsyncFileWriter(write, file, length, clock, self._record_growth, fail)

    async def receive(self, content: IBody) -> None:
        """Receive a whole body, or stop at the first error.

        When this ends nothing is being written any more: another process may continue the file then.

        :raises TooLong: if it is longer than the blob.
        :raises OSError: if it cannot be written.
        """
        self.is_receiving = True
        try:
            await self._interrupt.wait(lambda: content.deliver(self))
        finally:
            await self._writer.flushed()
            self.is_receiving = False
        self._interrupt.check()

    async def append(self, data: bytes) -> None:
        """Append bytes that are on the disk already.

        :raises Exception: what has interrupted the download, such as an ``OSError``.
        """
        self.write(data)
        await self._writer.flushed()
        await self._hasher.catch_up(self._writer.length)
        self._interrupt.check()

    def write(self, data: bytes) -> None:
        """Write the next bytes; errors interrupt the download and are not raised into the connection."""
        size = self._progress.size
        if self._interrupt.reason is not None:
            return
        try:
            if size is not None and self._received_length + len(data) > size:
                raise TooLong
            self._writer.write(data)
            self._adjust_pace()
        except (TooLong, OSError) as error:
            self._interrupt.set(error)

    @property
    def _received_length(self) -> int:
        return self._writer.length + self._writer.pending

    def _record_growth(self) -> None:
        length = self._writer.length
        if not self._is_hashing and length - self._hasher.hashed >= HASH_STEP:
            Deferred.fromCoroutine(self._hash())
        self._context.written(length - self._progress.length)
        self._progress.set_length(length)
        self._adjust_pace()

    async def _hash(self) -> None:
        """Hash in steps as the file grows; the last bytes are hashed when all are there."""
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
        self.adjust_pace(self._received_length - self._hasher.hashed)


@frozen
class PresentBlocks:
    """The file of a blob's blocks, which are read and not claimed: others may go on to fetch what is missing.

    :ivar size: the size of the blob.
    """

    size: int
    _file: BlockFile

    @classmethod
    async def open(cls, context: DownloadContext, registry: str, digest: Digest) -> PresentBlocks | None:
        """Return the blocks; None if there are none that can be read."""
        if not (context.root / layout.growing_blocks(registry, digest)).exists():
            return None
        opening = partial(BlockFile, context.root, registry, digest, context.in_thread)
        try:
            file = await shield(context.in_thread(opening), late=BlockFile.close)
        except OSError as error:
            context.disk_log.record_failure(error)
            return None
        state = file.state(context.clock.seconds())
        if state is BlockFileState.INCOMPLETE and file.version is not None:
            return cls(file.version.size, file)
        file.close()
        return None

    async def read(self, offset: int) -> bytes | None:
        """Return the rest of the block at the offset, if it is there and matches its checksum.

        :raises OSError: if the disk fails.
        """
        if offset >= self.size:
            return None
        block = offset // BLOCK
        data = await self._file.reader.in_thread(lambda _: self._file.verify(block))
        return None if data is None else data[offset - block * BLOCK :]

    def missing(self, offset: int) -> int | None:
        """Return the number of bytes from the offset to the next run of blocks; None if none follows."""
        present, run = self._file.read_map(), 0
        for block in range(offset // BLOCK + 1, self._file.blocks):
            run = run + 1 if block in present else 0
            if run == MIN_RUN:
                return (block + 1 - MIN_RUN) * BLOCK - offset
        return None

    def drop(self) -> None:
        """Take the file's name away: the blocks may be wrong."""
        self._file.unlink()

    def close(self) -> None:
        self._file.close()


@define(eq=False)
class UpstreamFetch:
    """Fetches what a partial file lacks, while its lock is held, until it is complete and verified.

    Each request is made with the source of a present reader.  Blocks that ranges have fetched are taken over,
    like the bytes of an earlier fetch.
    """

    _progress: DownloadProgress
    _partial_file: PartialFile
    _hasher: BackgroundHasher
    _interrupt: Interrupt
    _attempts: Attempts
    _context: DownloadContext
    _blocks: PresentBlocks | None
    _ingest: IngestConsumer = field(init=False)
    _was_answered: bool = field(default=False, init=False)
    _reject: Callable[[Digest], None] | None = field(default=None, init=False)  # at the last sender
    _is_mixed: bool = field(default=False, init=False)  # the bytes are not all of one response
    _is_complete: bool = field(default=False, init=False)  # as far as the upstream says

    def __attrs_post_init__(self) -> None:
        self._ingest = IngestConsumer(
            self._progress, self._partial_file, self._hasher, self._interrupt, self._context
        )

    async def run(self) -> None:
        """Fetch until the file is complete and verified.

        :raises CorruptContent: if the bytes do not match; ``Rejected`` if they were rejected at their sender.
        :raises RestartRequired: if the blob must be fetched from its start, into a new file.
        :raises Unreachable: if the upstream breaks off too often, or does not answer the first request.
        :raises NoReaders: if no reader is left.
        :raises OSError: if the disk fails.
        """
        if self._progress.length:
            await self._take_over()
        while not await self._is_verified():
            if self._blocks is not None and self._progress.size in (None, self._blocks.size):
                await self._take_blocks(self._blocks)
            response = None if self._is_complete else await self._request()
            if response is not None:
                await self._receive(response.content)

    @property
    def may_continue_without_readers(self) -> bool:
        """True if half of the blob is there, or little is missing."""
        length, size = self._progress.length, self._progress.size
        if size is None or not self._ingest.is_receiving:
            return False
        return 2 * length >= size or size - length < self._context.finish_threshold

    async def fallback(self) -> DiskFullFallback | None:
        """Return the fallback for readers; None if the upstream has not answered yet.

        :raises OSError: if the written bytes cannot be read.
        """
        length, size = self._progress.length, self._progress.size
        if not self._progress.has_answer:
            return None
        await self._hasher.catch_up(length)
        start = releasable_length(length, size)
        tail = os.pread(self._partial_file.descriptor, length - start, start)
        return DiskFullFallback(self._hasher.verifier(), length, tail, size, self._context.clock)

    async def _take_over(self) -> None:
        """Hash the bytes of an earlier fetch; readers are given them meanwhile."""
        self._is_mixed = True
        progress, length = self._progress, self._progress.length
        metadata = self._partial_file.metadata()
        if metadata is not None:
            if metadata.is_verified:  # this process has not verified it
                self._partial_file.write_size(metadata.size)
            progress.set_size(metadata.size)
        if progress.size is not None and length > progress.size:
            raise RestartRequired(Unavailable("more was fetched than the blob has"))
        await self._hasher.catch_up(length, lambda: bool(progress.readers))
        if self._hasher.hashed < length:
            raise NoReaders
        progress.restart_pace()
        self._is_complete = length == progress.size or await self._hasher.matches(length)

    async def _take_blocks(self, blocks: PresentBlocks) -> None:
        """Append the blocks that come next."""
        progress = self._progress
        while (data := await blocks.read(progress.length)) is not None:
            self._is_mixed = True
            if not progress.has_answer:
                self._partial_file.write_size(blocks.size)
                progress.set_size(blocks.size)
            await self._ingest.append(data)
            progress.restart_pace()
        self._is_complete = progress.length == blocks.size

    async def _is_verified(self) -> bool:
        if not self._is_complete:
            return False
        length, size = self._progress.length, self._progress.size
        if size not in (None, length) or not await self._hasher.matches(length):
            raise self._corruption()
        return True

    def _corruption(self) -> Exception:
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
            await self._handle_refusal(reader, offset, error)
            return None
        self._was_answered = True
        if not offset:
            self._progress.forget_departed()
        if not offset or response.size == self._progress.size is not None:  # else it may be a page
            reader.grant()
        self._accept(response, offset)
        return response

    async def _handle_refusal(self, reader: DownloadReader, offset: int, error: RegistryError) -> None:
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
                raise RestartRequired(Unavailable("the upstream reports another size than before"))
            self._is_mixed, self._reject = offset > 0, response.reject
            if self._partial_file.metadata() != PartialMetadata(size):
                self._partial_file.write_size(size)
            self._progress.set_size(size)
            if self._blocks is not None and size not in (None, self._blocks.size):
                self._blocks = None  # they are of something else
            self._interrupt.check()  # a reader may have left when it was admitted
        except BaseException:
            response.content.discard()
            raise

    async def _receive(self, content: IBody) -> None:
        missing = None if self._blocks is None else self._blocks.missing(self._progress.length)
        if missing is not None:
            content = Slice(content, 0, missing)
        try:
            await self._ingest.receive(content)
        except TooLong:
            raise self._corruption() from None
        except Unreachable as error:
            if self._progress.length != self._progress.size:
                await self._retry(error)
                return
        self._is_complete = missing is None
