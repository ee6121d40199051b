"""The beginning and the end of a file of blocks: it is opened or made, and kept or marked as corrupt."""

from __future__ import annotations

from functools import partial

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ...interfaces import Answer
from ...oci.digest import Digest
from ...oci.ranges import Span
from ..threads import shield
from ..writer import HASH_STEP, BackgroundHasher
from .block_fetch import parse_blocks
from .block_file import BLOCK, BlockFile, BlockFileState
from .block_waiter import POLL, BlocksDropped, BlockWaiter, RelayRequired, last_block
from .context import DownloadContext


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
    """Wait until the version of the blob is known; None if the file has no name any more."""
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
    if state is BlockFileState.FILLING and not file.is_superseded():
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


async def keep_or_mark(context: DownloadContext, digest: Digest, file: BlockFile, size: int) -> bool:
    """Keep the blob whose blocks are all claimed, or mark it as corrupt; return whether it is kept.

    :raises BlocksDropped: if the file was evicted meanwhile.
    :raises OSError: if the disk fails.
    """
    hasher = BackgroundHasher(digest, file.reader)
    try:
        while hasher.hashed < size:
            file.touch(context.clock.seconds())  # so that it is not evicted
            await hasher.catch_up(min(size, hasher.hashed + HASH_STEP))
        if not await hasher.matches(size):
            now = context.clock.seconds()
            await file.reader.in_thread(lambda _: file.mark_corrupt(now))
            context.stats.wrong += 1
            return False
        if not await file.reader.in_thread(lambda _: file.commit()):
            raise BlocksDropped
        context.stats.kept += 1
        context.disk_log.record_success()
        return True
    finally:
        file.release_all()
