"""The downloads of a store: each blob is fetched once from each registry, for all its readers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum, auto
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as Elapsed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...body.bodies import CorruptContent
from ...concurrency.coroutines import Interrupt, TTLCache
from ...interfaces import Answer, IDownloads, IPartSource, ISource
from ...oci.consent import HeldBlob
from ...oci.digest import Descriptor, Digest
from ...oci.errors import RegistryError, Unavailable
from ...oci.header_fields import CacheResult, CacheStatus, Span
from ...oci.media import BLOB_TYPE
from ...oci.request import Repository
from ...status import DownloadStatus
from ..file_body import FileReader
from ..writer import BackgroundHasher
from .block_downloads import BlockDownloads
from .context import (
    MAX_WAIT,
    Attempts,
    BlobLinks,
    BlobVersion,
    DiskFullFallback,
    DownloadContext,
    NoReaders,
    PossiblyCorrupt,
    Rejected,
    RestartRequired,
    RestOfPart,
)
from .partial_file import PartialFile, PartialPaths, PartialState, goes_on, is_locked, open_partial
from .progress import DownloadProgress, DownloadReader
from .upstream_fetch import PresentBlocks, UpstreamFetch

POLL = 0.03
"""Seconds between two checks of a file that another process downloads."""


class DownloadState(Enum):
    """The states of a ``Download``."""

    OPENING = auto()
    FOLLOWING = auto()
    FETCHING = auto()
    COMMITTING = auto()
    ENDED = auto()


class Download:
    """Downloads a blob for as long as somebody reads it, or follows another process that does.

    States, and what leads from one to another::

        OPENING      opens the partial file, or the finished blob
          FETCHING     the file's lock was free, and is held now
          FOLLOWING    another process holds it
          COMMITTING   the blob is finished
        FOLLOWING    looks at the file every 30 ms
          FETCHING     its owner has died, or has no readers left; the lock is held now
          COMMITTING   it is the finished blob, or matches the digest although it was replaced or written to
          OPENING      it was given up (RestartRequired)
        FETCHING     takes over blocks, asks the upstream for the rest, writes and hashes what comes
          COMMITTING   all bytes are there, and match the digest
          OPENING      the file cannot be continued (RestartRequired), and is removed
          ENDED        the upstream fails (RegistryError), or was asked often enough; the file is kept,
                       unless its bytes are wrong
        COMMITTING   gives the readers the tail; syncs, renames and links an own file
          ENDED        in any case; a file that cannot be renamed is removed
        each of them
          ENDED        the disk fails (OSError): an own file is removed; readers of a FETCHING download go on
                       by themselves (DiskFullFallback), all others fail
        each but COMMITTING
          OPENING      all readers have left (NoReaders), and others have come since
          ENDED        all have left.  FETCHING goes on, though, if most of the blob is there

    Locking: see ``partial_file`` for the rules.  The lock is held in FETCHING and from there in COMMITTING,
    and is released on the way to any other state, when nothing is being written any more.  Who does not hold
    it reads only: the tail of the file not before its owner has noted that the digest is right.

    :ivar progress: the length and state of the download, and its readers.
    :param may_continue: reports whether one more download may continue without readers.
    :param ended: called at the end, with the error if the download failed.
    """

    _log = Logger()

    def __init__(
        self,
        registry: str,
        digest: Digest,
        context: DownloadContext,
        may_continue: Callable[[], bool],
        ended: Callable[[Exception | None], None],
    ) -> None:
        self.progress = DownloadProgress(context.clock, self._stop_without_readers)
        self.state = DownloadState.OPENING
        self._name = f"{registry}: {digest}"
        self._registry = registry
        self._digest = digest
        self._context = context
        self._may_continue = may_continue
        self._ended = ended
        self._paths = PartialPaths.of(context.root, registry, digest)
        self._links = BlobLinks(context.contents, digest)
        self._interrupt = Interrupt()
        self._attempts = Attempts()
        self._partial: PartialFile | None = None
        self._is_owned = False
        self._fetch: UpstreamFetch | None = None

    def begin(self) -> None:
        Deferred.fromCoroutine(self._run()).addErrback(self._log_and_end)

    @property
    def is_without_readers(self) -> bool:
        """True while it is fetching without readers."""
        return self.state is DownloadState.FETCHING and not self.progress.readers

    async def link(self) -> None:
        await self._links.link(self.progress.repositories)

    def _stop_without_readers(self) -> None:
        if self.progress.readers or self.progress.is_verified:
            return
        if self._fetch is None or not (self._fetch.may_continue_without_readers and self._may_continue()):
            self._interrupt.set(NoReaders())

    async def _run(self) -> None:
        while self.progress.readers:
            try:
                return await self._attempt()
            except NoReaders:
                self._release()
            except RestartRequired as required:
                if not self._may_restart(required):
                    return self._end(required.error)
            except OSError as error:
                return await self._fall_back(error)
            except RegistryError as error:
                return self._end(error)
        return self._end(None)

    async def _attempt(self) -> None:
        self.state, self._interrupt = DownloadState.OPENING, Interrupt()
        partial, state = await self._context.in_thread(lambda: open_partial(self._paths))
        self._partial = partial
        file = FileReader(partial.descriptor, self._context.in_thread)
        hasher = BackgroundHasher(self._digest, file)
        self.progress.set_file(file, partial.length())
        if state is not PartialState.OWNED:
            self.state = DownloadState.FOLLOWING
            state = await self._follow(partial)
        self._is_owned = state is PartialState.OWNED
        if self._is_owned:
            self.state = DownloadState.FETCHING
            await self._complete(partial, hasher)
        elif state is PartialState.UNLINKED or not self.progress.is_verified:
            await self._verify(hasher)
        await self._commit(partial)

    async def _complete(self, partial: PartialFile, hasher: BackgroundHasher) -> None:
        blocks = None
        if self._attempts.may_use_blocks:
            blocks = await PresentBlocks.open(self._context, self._registry, self._digest)
        try:
            self._fetch = UpstreamFetch(
                self.progress, partial, hasher, self._interrupt, self._attempts, self._context, blocks
            )
            await self._fetch.run()
        except RestartRequired:
            if blocks is not None:
                blocks.drop()
            raise
        finally:
            if blocks is not None:
                blocks.close()

    async def _follow(self, partial: PartialFile) -> PartialState:
        """Wait until no other process owns the file, and return its state then."""
        while (state := self._look(partial)) is PartialState.LOCKED:
            await self._interrupt.wait(lambda: deferLater(self._context.clock, POLL))
        return state

    def _look(self, partial: PartialFile) -> PartialState:
        """Read the metadata before the state: it is this file's, if the file has its name afterwards."""
        progress, metadata = self.progress, partial.metadata()
        state, sealed = partial.state(), partial.sealed_length()
        length = partial.length() if sealed is None else sealed
        if length != progress.length and not progress.is_verified:
            progress.set_length(length)
        is_right = state is PartialState.COMPLETE and sealed is not None
        if state is PartialState.LOCKED and metadata is not None:
            if not progress.has_answer or metadata.size != progress.size:
                progress.set_size(metadata.size)
            is_right = metadata.is_verified and metadata.size == length
        if is_right:
            progress.mark_verified()
        return state

    async def _verify(self, hasher: BackgroundHasher) -> None:
        """Verify a file that was replaced, perhaps by an equal one, or written to after it was complete."""
        length = self.progress.length
        if length == self.progress.size:
            await hasher.catch_up(length, lambda: bool(self.progress.readers))
        if hasher.hashed < length or not await hasher.matches(length):
            raise RestartRequired(Unavailable("the download in another process was given up"))

    async def _commit(self, partial: PartialFile) -> None:
        self.state = DownloadState.COMMITTING
        self.progress.mark_verified()
        if self._is_owned:
            is_kept = await self._store(partial)
            self._context.stats.kept += is_kept
            self._release(remove=not is_kept)
        await self.link()
        self._end(None)

    async def _store(self, partial: PartialFile) -> bool:
        """Store the blob; False if it cannot be renamed, but can still be read while it is open.

        :raises OSError: if the disk has lost bytes: then nothing more may be read.
        """
        with suppress(OSError):
            partial.write_verified_length(partial.length())
        await self._context.in_thread(partial.sync)
        try:
            await self._context.in_thread(partial.commit)
        except OSError as error:
            self._context.disk_log.record_failure(error)
            return False
        self._context.disk_log.record_success()
        return True

    def _may_restart(self, required: RestartRequired) -> bool:
        """Give the file up; False if this process has made all its attempts."""
        was_fetching = self.state is DownloadState.FETCHING
        self._attempts.were_wrong |= isinstance(required, PossiblyCorrupt)
        self._attempts.may_use_blocks = False
        self._release(remove=True)
        self.progress.restart(required.error)
        return not was_fetching or next(self._attempts.pauses, None) is not None

    async def _fall_back(self, error: OSError) -> None:
        self._context.disk_log.record_failure(error)
        fallback = None
        if self._fetch is not None and not self.progress.is_verified:
            with suppress(OSError):
                fallback = await self._fetch.fallback()
        self._end(error, fallback)

    def _end(self, error: Exception | None, fallback: DiskFullFallback | None = None) -> None:
        self.state = DownloadState.ENDED
        if isinstance(error, CorruptContent):
            self._log.error("{name}: {error}", name=self._name, error=str(error))
            self._context.stats.wrong += 1
        elif error is not None:
            self._context.stats.failed += 1
        self._release(remove=isinstance(error, CorruptContent | OSError))
        self._ended(error)
        self.progress.end(None if fallback else error, fallback)

    def _release(self, remove: bool = False) -> None:
        """Release the lock. Always remove an empty file: requests for unknown digests leave them."""
        partial, self._partial, self._fetch = self._partial, None, None
        if partial is None:
            return
        with suppress(OSError):
            length = partial.length()
            if self._is_owned and (remove or not length):
                partial.remove()
                self._context.written(-length)
        self._is_owned = False
        partial.unlock()

    def _log_and_end(self, failure: Failure) -> None:
        self._log.failure("the download of {name} failed unexpectedly", failure=failure, name=self._name)
        if self.state is not DownloadState.ENDED:
            self._end(Unavailable("the download failed unexpectedly"))


MAX_WITHOUT_READERS = 4
"""Downloads without readers that may continue at the same time."""
CORRUPT_TTL = 60.0
"""Seconds without requests for a corrupt blob, unless its sender is quarantined instead."""
_MAX_CORRUPT = 10_000

_Key = tuple[str, Digest]


@implementer(IDownloads)
class Downloads:
    """Downloads to a local disk, shared with every other process on the same directory."""

    def __init__(self, context: DownloadContext) -> None:
        self._context = context
        self._downloads: dict[_Key, Download] = {}
        self._corrupt: TTLCache[_Key, bool] = TTLCache(context.clock, _MAX_CORRUPT)
        self._blocks = BlockDownloads(context)

    def is_downloading(self, registry: str, digest: Digest) -> bool:
        paths = PartialPaths.of(self._context.root, registry, digest)
        return (registry, digest) in self._downloads or is_locked(paths)

    def active(self) -> Sequence[DownloadStatus]:
        """Return the downloads of this process that the upstream has answered."""
        active = []
        for (registry, digest), download in self._downloads.items():
            progress = download.progress
            names = tuple(sorted(str(each) for each in progress.repositories))
            if progress.has_answer:
                active.append(
                    DownloadStatus(
                        registry, str(digest), names, progress.length, progress.size, progress.pace
                    )
                )
        return active

    async def join(
        self, registry: str, repository: Repository, digest: Digest, source: ISource
    ) -> DownloadReader:
        """Join; a reader whose own source begins the download needs no check."""
        key = registry, digest
        if self._corrupt.get(key):
            raise CorruptContent(f"{registry} has sent wrong bytes for {digest} a moment ago")
        joined = key in self._downloads
        download = self._downloads[key] if joined else self._new(key)
        reader = DownloadReader(download.progress, repository, source, joined)
        download.progress.add(reader)
        if not joined:
            download.begin()
        try:
            await self._admit(reader, download)
        except BaseException:
            reader.leave()
            raise
        return reader

    async def read_part(
        self, registry: str, repository: Repository, digest: Digest, span: Span, source: IPartSource
    ) -> Answer | None:
        """Read a part of a running download if it comes soon, and of the blob's blocks otherwise.

        A client that goes on where a download of the whole was broken off has that download go on, unless
        blocks of the blob were fetched since.
        """
        paths = PartialPaths.of(self._context.root, registry, digest)
        is_resumed = goes_on(span, paths) and not self._blocks.exist(registry, digest)
        if is_resumed or self.is_downloading(registry, digest):
            joining = Deferred.fromCoroutine(self.join(registry, repository, digest, source))
            with suppress(Elapsed, OSError):
                reader = await joining.addTimeout(MAX_WAIT, self._context.clock)
                part = reader.choose_part(span)
                if part is not None:
                    if part.length < (size := reader.size or 0):
                        reader.rest = RestOfPart(source, self._context.clock, BlobVersion(size))
                    body = reader.content(Descriptor(BLOB_TYPE, digest, part.length), part)
                    return Answer(body, 206, part, cache=CacheStatus(CacheResult.JOINED))
        return await self._blocks.read(registry, repository, digest, span, source)

    async def _admit(self, reader: DownloadReader, download: Download) -> None:
        reader.check()
        while not download.progress.has_answer:
            await reader.change()
        if not reader.is_granted:
            reader.joined = reader.joined or download.state is not DownloadState.FETCHING
            await reader.source.check(HeldBlob(download.progress.size, reader.read))
            reader.check()
            reader.grant()
        reader.size = download.progress.size
        if download.state is DownloadState.ENDED:
            await download.link()

    def _new(self, key: _Key) -> Download:
        download = Download(*key, self._context, self._may_continue, partial(self._remove, key))
        self._downloads[key] = download
        return download

    def _may_continue(self) -> bool:
        """Report whether few enough downloads are without readers; the one that asks is counted already."""
        without_readers = sum(each.is_without_readers for each in self._downloads.values())
        return without_readers <= MAX_WITHOUT_READERS

    def _remove(self, key: _Key, error: Exception | None) -> None:
        del self._downloads[key]
        if isinstance(error, CorruptContent) and not isinstance(error, Rejected):
            self._corrupt.put(key, True, CORRUPT_TTL)
