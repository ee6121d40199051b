"""Parts of blobs that are not held: their readers, and the downloads that these share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from ...body.bodies import TAIL_HOLDBACK, CorruptContent
from ...body.consumers import CoroutineProducer
from ...concurrency.coroutines import TTLCache
from ...interfaces import Answer, IBody, IPartSource
from ...oci.digest import Descriptor, Digest
from ...oci.header_fields import ContentRange, Span
from ...oci.media import BLOB_TYPE
from ...oci.request import Repository
from .. import layout
from ..file_body import ITransfer, choose_transfer
from .block_download import BlockDownload
from .block_file import BLOCK
from .block_waiter import POLL, BlocksDropped, BlockWaiter, RelayRequired, last_block
from .context import DownloadContext, NoBlocks, RestOfPart, VersionChanged
from .progress import as_unavailable

MAX_COMPLETIONS = 4
"""Blobs that a process completes at the same time."""
NO_BLOCKS_TTL = 600.0
"""Seconds for which parts are relayed after the upstream has answered with no part of a known size."""
_MOST = 10_000
_Key = tuple[str, Digest]


@implementer(IBody)
class BlockReader(BlockWaiter):
    """One reader of a part, and its body, which is read from the blocks as they come.

    Of a part that is the whole blob, the tail waits for the digest.
    """

    descriptor = Descriptor()
    part: ContentRange

    def __init__(
        self, download: BlockDownload, repository: Repository, span: Span, source: IPartSource
    ) -> None:
        consent = partial(download.consent, repository)
        super().__init__(source, download.context.clock, download.changes, consent)
        self.download = download
        self._span = span
        self._position = 0
        self._rest: RestOfPart | None = None
        self._on_failure: Callable[[Exception], None] = lambda _: None

    async def enter(self, repository: Repository, digest: Digest) -> None:
        """Be admitted to the part; raises like ``BlockDownload.admit``."""
        self.part = await self.download.admit(self, repository, self._span)
        self.descriptor = Descriptor(BLOB_TYPE, digest, self.part.length)
        self._position = self.part.first
        self._rest = RestOfPart(self.source, self.download.context.clock, self.download.version)
        self.record_progress()

    def fail(self, error: Exception) -> None:
        """End the reading at once, unless the reader can go on by itself."""
        super().fail(error)
        if not isinstance(error, NoBlocks):
            self._on_failure(error)

    def discard(self) -> None:
        self.leave()

    def leave(self) -> None:
        self.download.remove(self)
        self.cancel()

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        producer = CoroutineProducer(consumer, self.download.context.clock, self.leave)
        transfer = choose_transfer(producer, consumer)
        self._on_failure = producer.fail
        delivered = producer.follow(self._deliver(producer, transfer)).addErrback(as_unavailable)
        return delivered.addCallback(self._deliver_rest, consumer)

    @property
    def _is_whole(self) -> bool:
        return self.part.length == self.part.size

    @property
    def _readable(self) -> int:
        """The number of bytes that may be read now."""
        end = min(self.download.readable_end(self._position), self.part.last + 1)
        if self._is_whole and not self.download.is_verified:
            end = min(end, self.download.version.size - TAIL_HOLDBACK)
        return end - self._position

    async def _deliver(self, producer: CoroutineProducer, transfer: ITransfer) -> None:
        producer.register()
        try:
            while self._position <= self.part.last:
                self.check()
                self.download.check_state()
                if self._readable <= 0:
                    await self._advance()
                    continue
                self.record_progress()
                await producer.ready()
                length, file = self._readable, self.download.file.reader
                if length <= 0:  # the request of another reader, which was bringing them, has failed
                    continue
                sent = transfer.try_send(file, self._position, length)
                if sent is None:
                    send = await transfer.read_then_send(file, self._position, length)
                    sent = 0 if producer.paused else send()
                self._position += sent
        except (RelayRequired, NoBlocks):
            await producer.ready()  # nothing is requested for a client that takes nothing

    async def _advance(self) -> None:
        """Wait for bytes at the position, or, where only the tail is withheld, for the digest."""
        download, block, end = self.download, self._position // BLOCK, self.part.last // BLOCK
        while block < end and download.is_present(block):
            block += 1
        if download.is_present(block):
            download.complete_if_due(is_needed=True)
            await self.wait(POLL, own=True)
        else:
            await download.advance(self, block, last_block(self._span, block * BLOCK, self.part.last))

    def _deliver_rest(self, _: None, consumer: IConsumer) -> Deferred[None] | None:
        """Deliver what the download does not, fetched for this reader by itself."""
        if self._rest is None or self._position > self.part.last:
            return None
        return self._rest.deliver(self._position, self.part.last, consumer)


class BlockDownloads:
    """The downloads of this process."""

    def __init__(self, context: DownloadContext) -> None:
        self._context = context
        self._downloads: dict[_Key, BlockDownload] = {}
        self._without_blocks: TTLCache[_Key, bool] = TTLCache(context.clock, _MOST)

    def exist(self, registry: str, digest: Digest) -> bool:
        """Return whether there are blocks of a blob."""
        return (self._context.root / layout.growing_blocks(registry, digest)).exists()

    async def read(
        self, registry: str, repository: Repository, digest: Digest, span: Span, source: IPartSource
    ) -> Answer | None:
        """Read a part; see ``IDownloads.read_part``."""
        key = registry, digest
        if self._without_blocks.get(key):
            return None
        for _ in range(2):
            download = self._downloads.get(key) or self._new(key)
            reader = BlockReader(download, repository, span, source)
            download.add(reader)
            try:
                await reader.enter(repository, digest)
            except BaseException as error:
                reader.leave()
                if isinstance(error, NoBlocks):
                    self._without_blocks.put(key, True, NO_BLOCKS_TTL)
                elif isinstance(error, OSError):
                    self._context.disk_log.record_failure(error)
                elif not isinstance(error, RelayRequired | VersionChanged | CorruptContent):
                    raise
                if not isinstance(error, BlocksDropped | VersionChanged):
                    return None
            else:
                return Answer(reader, 206, reader.part)
        return None

    def _new(self, key: _Key) -> BlockDownload:
        download = BlockDownload(*key, self._context, self._may_complete, partial(self._remove, key))
        self._downloads[key] = download
        return download

    def _may_complete(self) -> bool:
        return sum(download.is_completing for download in self._downloads.values()) < MAX_COMPLETIONS

    def _remove(self, key: _Key) -> None:
        del self._downloads[key]
