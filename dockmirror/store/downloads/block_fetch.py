"""The fetch of a run of blocks, and what surrounds all fetches of a blob: its file is made and finished.

A run is fetched in one request, unless the upstream breaks off; the first request makes the file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from zlib import crc32

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from ...body.bodies import PAUSES, Slice
from ...concurrency.coroutines import Interrupt, shield
from ...interfaces import Answer, IPartSource
from ...oci.digest import Digest
from ...oci.errors import Unreachable
from ...oci.header_fields import Span
from ..writer import HASH_STEP, AsyncFileWriter, BackgroundHasher, BackloggedConsumer
from .block_file import BLOCK, BlockFile, BlockFileState
from .block_waiter import POLL, BlockWaiter, RelayRequired, last_block
from .context import BlobVersion, DownloadContext, NoBlocks, VersionChanged, parse_part


def parse_blocks(answer: Answer, first: int, last: int) -> BlobVersion:
    """Return the version of the blob of which the answer has these bytes, as far as it reaches.

    :raises NoBlocks: if blocks cannot be made of such answers; the body is discarded.
    :raises Unavailable: if it is another part.
    """
    if answer.upstream_status == 200:
        answer.body.discard()
        raise NoBlocks("the upstream does not serve ranges")
    return parse_part(answer, first, last)


@implementer(IConsumer)
@define(eq=False)
class BlockFetch(BackloggedConsumer):
    """Fetches the claimed blocks of a run with one reader's source, and enters each when it is written.

    :ivar run: the blocks.
    :ivar written: the offset up to which the run is written.
    :ivar is_answered: the upstream has answered.
    :param on_written: called after each write.
    :param on_block: called with each block that is there.
    """

    max_backlog = 4 * 1024 * 1024  # to be written
    run: range
    source: IPartSource
    _file: BlockFile
    _context: DownloadContext
    _on_written: Callable[[], None]
    _on_block: Callable[[int], None]
    is_answered: bool = field(default=False, init=False)
    _interrupt: Interrupt = field(factory=Interrupt, init=False)
    _writer: AsyncFileWriter = field(init=False)
    _received: int = field(init=False)
    _counted: int = field(init=False)
    _checksum: int = field(default=0, init=False)
    _checksums: deque[tuple[int, int, int]] = field(factory=deque, init=False)

    def __attrs_post_init__(self) -> None:
        start = self.run.start * BLOCK
        self._received = self._counted = start
        self._writer = AsyncFileWriter(
            self._file.write, self._file.reader, start, self._context.clock, self._record, self._interrupt.set
        )

    @property
    def written(self) -> int:
        return self._writer.length

    def interrupt(self, reason: Exception) -> None:
        """End the fetch; what was claimed is released when nothing is being written any more."""
        self._interrupt.set(reason)

    async def fetch(self, answer: Answer | None) -> None:
        """Fetch the run; release the claims of the blocks that are still missing at the end.

        :param answer: the upstream's answer to the request for the run, if it was sent already.
        :raises RegistryError: the source's refusal; ``Unreachable`` if the upstream breaks off too often.
        :raises VersionChanged: if the upstream has another blob now.
        :raises OSError: if the disk fails.
        """
        pauses = iter(PAUSES)
        try:
            while self._received < self._end:
                try:
                    await self._receive(answer or await self._open())
                except Unreachable:
                    pause = next(pauses, None)
                    if pause is None or not self.is_answered:
                        raise
                    self._context.stats.resumed += 1
                    await self._interrupt.wait(partial(deferLater, self._context.clock, pause))
                answer = None
        finally:
            await self._writer.flushed()
            for block in self.run:
                if self._file.end(block) > self._counted:
                    self._file.release(block)
        self._interrupt.check()

    def write(self, data: bytes) -> None:
        """Write the next bytes; errors interrupt the fetch and are not raised into the connection."""
        if self._interrupt.reason is not None:
            return
        try:
            self._add_checksums(data)
            self._writer.write(data)
            self.adjust_pace(self._writer.pending)
        except OSError as error:
            self._interrupt.set(error)

    @property
    def _end(self) -> int:
        return self._file.end(self.run.stop - 1)

    async def _open(self) -> Answer:
        first, last = self._received, self._end - 1
        opening = self._interrupt.wait(lambda: Deferred.fromCoroutine(self.source.open_part(first, last)))
        return await opening

    async def _receive(self, answer: Answer) -> None:
        version = parse_blocks(answer, self._received, self._end - 1)
        body = Slice(answer.body, 0, self._end - self._received)
        try:
            if not self._file.accept(version):
                raise VersionChanged("the upstream has another content than before")
            self.is_answered = True
            self._on_written()
            self._interrupt.check()
        except BaseException:
            body.discard()
            raise
        await self._interrupt.wait(lambda: body.deliver(self))

    def _add_checksums(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            block = self._received // BLOCK
            end = self._file.end(block)
            piece, view = view[: end - self._received], view[end - self._received :]
            self._checksum = crc32(piece, self._checksum)
            self._received += len(piece)
            if self._received == end:
                self._checksums.append((end, block, self._checksum))
                self._checksum = 0

    def _record(self) -> None:
        """Enter the blocks that are written; errors interrupt the fetch, as those of writing do."""
        try:
            self._record_blocks()
        except OSError as error:
            self._interrupt.set(error)
        self.adjust_pace(self._writer.pending)
        self._on_written()

    def _record_blocks(self) -> None:
        while self._checksums and self._checksums[0][0] <= self._writer.length:
            end, block, checksum = self._checksums[0]
            self._file.record(block, checksum)
            self._checksums.popleft()
            self._context.written(end - self._counted)
            self._counted = end
            self._on_block(block)


@frozen
class OpenedBlocks:
    """A file whose version is known, and the first fetch, if this process has made the file.

    :ivar run: the claimed blocks.
    :ivar answer: the upstream's answer to the request for them.
    """

    file: BlockFile
    run: range = range(0)
    answer: Answer | None = None


async def open_blocks(
    context: DownloadContext, registry: str, digest: Digest, waiter: BlockWaiter, span: Span
) -> OpenedBlocks:
    """Open the blocks of a blob from that registry, for a reader of a part.

    :raises RelayRequired: if the blob was corrupt a while ago, another version of the mirror has its blocks
        in a format that this one does not know, or it takes too long.
    :raises NoBlocks: if the upstream's answers give no blocks.
    :raises RegistryError: the refusal of the reader's source.
    :raises OSError: if the file cannot be opened or made.
    """
    opening = partial(BlockFile, context.root, registry, digest, context.in_thread)
    while True:
        file = await shield(context.in_thread(opening), late=BlockFile.close)
        opened = None
        try:
            opened = await _settle(file, waiter, span, context.clock)
        finally:
            if opened is None:
                file.close()
        if opened is not None:
            return opened


async def _settle(
    file: BlockFile, waiter: BlockWaiter, span: Span, clock: IReactorTime
) -> OpenedBlocks | None:
    """Return the file once its footer tells the version of the blob, which this reader may have to ask for.

    None if another file must be opened: this one has lost its name, or is torn and loses it here.
    """
    while (state := file.state(clock.seconds())) is BlockFileState.NEW and not file.is_superseded():
        if not file.claim_creation():
            await waiter.wait(POLL)
        elif file.state(clock.seconds()) is not BlockFileState.NEW or file.is_superseded():
            file.release_creation()
        elif not file.is_torn():
            return await _create(file, waiter, span)
        else:
            break
    if state in (BlockFileState.CORRUPT, BlockFileState.FOREIGN):
        raise RelayRequired
    if state is BlockFileState.COMPLETE:
        return OpenedBlocks(file)
    if state is BlockFileState.INCOMPLETE and not file.is_superseded():
        return OpenedBlocks(file)
    file.unlink()
    return None


async def _create(file: BlockFile, waiter: BlockWaiter, span: Span) -> OpenedBlocks:
    """Make the file with the upstream's answer to the reader's request."""
    first = span.first or 0  # also for the last bytes, as long as the size is not known
    start, stop = first // BLOCK, last_block(span, first, span.last) + 1
    try:
        answer = await waiter.source.open_part(start * BLOCK, stop * BLOCK - 1)
        version = parse_blocks(answer, start * BLOCK, stop * BLOCK - 1)
        try:
            run = file.create(version, range(start, stop))
        except OSError:
            answer.body.discard()
            raise
    except BaseException:
        file.unlink()
        raise
    file.release_creation()
    return OpenedBlocks(file, run, answer)


async def finish_blocks(context: DownloadContext, digest: Digest, file: BlockFile) -> BlockFileState:
    """Hash a file whose blocks are all claimed; keep the blob, or mark it as corrupt.

    :return: the state of the file then; its claims are released.
    :raises OSError: if the disk fails.
    """
    size, hasher = file.end(file.blocks - 1), BackgroundHasher(digest, file.reader)
    try:
        while hasher.hashed < size:
            file.touch(context.clock.seconds())  # so that it is not evicted
            await hasher.catch_up(min(size, hasher.hashed + HASH_STEP))
        if not await hasher.matches(size):
            now = context.clock.seconds()
            await file.reader.in_thread(lambda _: file.mark_corrupt(now))
            context.stats.wrong += 1
            return BlockFileState.CORRUPT
        if not await file.reader.in_thread(lambda _: file.commit()):
            return BlockFileState.UNLINKED
        context.stats.kept += 1
        context.disk_log.record_success()
        return BlockFileState.COMPLETE
    finally:
        file.release_all()
