"""The blocks of one blob in one process: their readers, and the fetches for them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...body.bodies import CorruptContent
from ...concurrency.coroutines import Changes
from ...interfaces import Answer, IPartSource
from ...oci.consent import HeldBlob
from ...oci.digest import Digest
from ...oci.errors import RegistryError, Unavailable
from ...oci.header_fields import ContentRange, Range, Span
from ...oci.request import Repository
from .block_fetch import BlockFetch, finish_blocks, open_blocks
from .block_file import BLOCK, BlockFile, BlockFileState
from .block_waiter import MAX_RUN, POLL, BlocksDropped, BlockWaiter, RelayRequired, last_block
from .context import LINGER, BlobLinks, BlobVersion, DownloadContext, NoBlocks, NoReaders, VersionChanged


class BlockDownload:
    """Fetches the blocks of a blob for the readers of parts, in this process.

    States of the file, and what leads from one to another::

        NEW          its name was just made; one process at a time asks the upstream for the size
          INCOMPLETE   the upstream has answered with a part, and the footer is written
          UNLINKED     the upstream refuses the part; or a process has died while it made or finished the file
        INCOMPLETE   readers fetch what they lack, each with its own source
          COMPLETE     all blocks are there, and match the digest
          CORRUPT      all blocks are there, and do not match: a mark replaces it for ten minutes
          UNLINKED     the upstream has another size or entity tag now, or the file was evicted, or a
                       download of the whole blob did not match with these blocks
        COMPLETE     it is the finished blob, sealed and linked; readers are given all of it
        CORRUPT      readers are cut off, and parts are fetched for each reader by itself
        FOREIGN      its format is not known to this version; parts are fetched for each reader by itself
        UNLINKED     new readers open a new file; others relay the rest, unless the upstream has changed

    States of a block::

        missing      nobody fetches it
          claimed      a reader needs it, or the completion, and has locked its byte in the file
        claimed      in one request with the missing blocks after it that the reader needs, and with the
                       rest of the last one's MiB, at most 16 MiB
          present      it is written, and entered with its checksum; it is released
          missing      the request fails, or the process dies; or it has no readers any more, for 10 s
        present      other processes read it once they have verified the checksum
          missing      the checksum does not match, after a power failure

    A reader of a missing block that another reader fetches is given the bytes as they come, and one of a
    block that another process fetches when it is entered.  Either waits for at most 5 s without a byte, and
    then fetches the rest of its part by itself, past the file.

    When half of the blocks are there, the process fetches those that are missing, in order, with the source
    of its latest reader; it claims all blocks, hashes them, and keeps or drops the blob.  Several processes
    may complete a blob at the same time: the claims divide the blocks among them.

    Locking: see ``block_file``.  A process keeps its file open for 10 s after its last reader.
    :ivar changes: the changes that readers wait for.
    :ivar is_verified: the file is the finished blob.
    :ivar is_completing: the missing blocks are being fetched, or all of them hashed.
    :param may_complete: reports whether one more blob may be completed.
    :param ended: called when new readers must open the file again.
    """

    _log = Logger()

    def __init__(
        self,
        registry: str,
        digest: Digest,
        context: DownloadContext,
        may_complete: Callable[[], bool],
        ended: Callable[[], None],
    ) -> None:
        self.context = context
        self.changes = Changes()
        self.is_verified = self.is_completing = False
        self._name = f"{registry}: {digest}"
        self._registry = registry
        self._digest = digest
        self._may_complete = may_complete
        self._ended = ended
        self._file: BlockFile | None = None
        self._opener: BlockWaiter | None = None
        self._readers: dict[BlockWaiter, None] = {}
        self._latest: tuple[Repository, IPartSource] | None = None
        self._fetches: dict[int, BlockFetch] = {}
        self._trusted: set[int] = set()
        self._consented: set[Repository] = set()
        self._links = BlobLinks(context.contents, digest)
        self._lingering: IDelayedCall | None = None
        self._has_ended = self._has_failed = self._has_tried = False

    @property
    def version(self) -> BlobVersion:
        """The version of the blob, which a reader may ask for once it is admitted."""
        version = self.file.version
        assert version is not None
        return version

    @property
    def file(self) -> BlockFile:
        assert self._file is not None
        return self._file

    def add(self, reader: BlockWaiter) -> None:
        self._readers[reader] = None
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

    def remove(self, reader: BlockWaiter) -> None:
        """Remove a reader, unless it was removed before."""
        if reader in self._readers:
            del self._readers[reader]
            if not self._readers:
                self._linger()

    def consent(self, repository: Repository) -> None:
        """Link the blob to the repository, now or when it is complete."""
        self._consented.add(repository)
        if self.is_verified:
            self._link()

    async def admit(self, reader: BlockWaiter, repository: Repository, span: Span) -> ContentRange:
        """Return the part that the reader has asked for, once the client may have it and its bytes come.

        :raises RelayRequired: if the part must be fetched for this reader by itself.
        :raises NoBlocks: if that holds for all parts.
        :raises VersionChanged: if the blob has changed at the upstream; its blocks are dropped.
        :raises RegistryError: when the client may not have it, or there is no such part.
        """
        await self._open(reader, span)
        self.check_state()
        part = span.resolve(self.version.size)
        first, last = (part.first // BLOCK, last_block(span, part.first, part.last)) if part else (0, -1)
        if not reader.is_granted and (self.file.present() or not self._begin_fetch(first, last, reader)):
            await reader.source.check(self._held(reader, first))
            reader.grant()
        while not reader.is_granted:
            self.check_state()
            await reader.wait(None, own=True)
        (part,) = Range((span,)).resolve(self.version.size)  # only now, as the error tells the size
        while not self._has_begun(first):
            await self.advance(reader, first, last)
        self.file.touch(self.context.clock.seconds())
        self._latest, self._has_tried = (repository, reader.source), False
        self.complete_if_due()
        return part

    def is_present(self, block: int) -> bool:
        """Return whether a block may be read by this process."""
        return self.is_verified or block in self._trusted

    def readable_end(self, position: int) -> int:
        """Return the offset up to which the file may be read from a position on."""
        block = position // BLOCK
        while self.is_present(block) and block * BLOCK < position + MAX_RUN * BLOCK:
            block += 1
        fetch = self._fetches.get(block)
        return min(max(block * BLOCK, position, fetch.written if fetch else 0), self.version.size)

    async def advance(self, waiter: BlockWaiter, block: int, last: int) -> None:
        """Bring a block closer: verify it, fetch it with what is missing up to ``last``, or wait for it.

        :raises RelayRequired: if it cannot be had, or takes too long.
        :raises Exception: the failure of the waiter.
        """
        waiter.check()
        self.check_state()
        if self.is_present(block):
            return
        fetch = self._fetches.get(block)
        if fetch is not None:
            await waiter.wait(None, own=fetch is waiter.own)
        elif self.file.has(block):
            verify = self.file.verify
            if await self.file.reader.in_thread(lambda _: verify(block)) is not None:
                self._trusted.add(block)
                self.changes.notify()
        elif not self._begin_fetch(block, last, waiter):
            await waiter.wait(POLL)

    def check_state(self) -> None:
        """Check that the file can still be used.

        :raises RelayRequired: if it has no name any more, or the disk has failed.
        :raises CorruptContent: if the blob is wrong.
        """
        if self.is_verified:
            return
        state = self.file.state(self.context.clock.seconds())
        if state is BlockFileState.COMPLETE:
            self._mark_verified()
        elif state is BlockFileState.CORRUPT:
            error = CorruptContent("the upstream's content is not the blob of that digest")
            self._fail(error)
            raise error
        elif state is BlockFileState.UNLINKED or self._has_failed:
            self._end()
            raise BlocksDropped

    def complete_if_due(self, is_needed: bool = False) -> None:
        """Begin to complete the blob if half of the blocks are there, or a reader needs it."""
        if self.is_completing or self.is_verified or self._latest is None or self._has_failed:
            return
        if not is_needed and (self._has_tried or not self._may_complete()):
            return
        if not is_needed and 2 * len(self.file.present()) < self.file.blocks:
            return
        self.is_completing = self._has_tried = True
        repository, source = self._latest
        consent = partial(self.consent, repository)
        completion = BlockWaiter(source, self.context.clock, self.changes, consent, is_patient=True)
        Deferred.fromCoroutine(self._complete(completion)).addBoth(self._end_completion)

    async def _open(self, reader: BlockWaiter, span: Span) -> None:
        while self._file is None and self._opener is not None:
            await reader.wait(None)
        if self._file is not None:
            return
        self._opener = reader
        try:
            opened = await open_blocks(self.context, self._registry, self._digest, reader, span)
            self._file = opened.file
            if opened.answer is not None:
                reader.grant()
                self._start(opened.run, reader, opened.answer)
        except NoBlocks as error:
            self._fail(error)
            raise
        finally:
            self._opener = None
            self.changes.notify()

    def _held(self, reader: BlockWaiter, first: int) -> HeldBlob:
        """Return the blob to compare with the upstream's: a part of a block that is there, or comes first."""
        block = secrets.choice(tuple(self.file.present()) or [first])
        return HeldBlob(self.version.size, partial(self._read, reader), self.file.sample(block))

    async def _read(self, reader: BlockWaiter, part: ContentRange) -> bytes | None:
        """Return a part of a block as soon as it has arrived; None if that cannot be, or the reader left."""
        block = part.first // BLOCK
        try:
            while reader in self._readers and self.readable_end(part.first) <= part.last:
                if block in self._fetches or not self.file.has(block):
                    self.check_state()
                    await reader.wait(None if block in self._fetches else POLL)
                else:
                    await self.advance(reader, block, block)
            if reader in self._readers:
                return await self.file.reader.read(part.first, part.length)
        except (RelayRequired, RegistryError, OSError, CancelledError) as error:
            if isinstance(error, CancelledError) and reader in self._readers:  # it was not by ``remove``
                raise
        return None

    def _has_begun(self, block: int) -> bool:
        fetch = self._fetches.get(block)
        return self.is_present(block) or (fetch is not None and fetch.is_answered)

    def _begin_fetch(self, block: int, last: int, waiter: BlockWaiter) -> bool:
        """Claim a block and those missing after it, and fetch them; False if it cannot be claimed."""
        end, last = block, min(last, self.file.blocks - 1)
        while end <= last and end not in self._fetches and not self.is_present(end) and self.file.claim(end):
            end += 1
        if end > block:
            self._start(range(block, end), waiter, None)
        return end > block

    def _start(self, run: range, waiter: BlockWaiter, answer: Answer | None) -> None:
        def notify() -> None:
            if fetch.is_answered and not waiter.is_granted:
                waiter.grant()
            self.changes.notify()

        waiter.own = fetch = BlockFetch(
            run, waiter.source, self.file, self.context, notify, self._record_block
        )
        self._fetches.update(dict.fromkeys(run, fetch))
        Deferred.fromCoroutine(self._fetch(fetch, waiter, answer)).addErrback(self._log_failure)

    async def _fetch(self, fetch: BlockFetch, waiter: BlockWaiter, answer: Answer | None) -> None:
        try:
            await fetch.fetch(answer)
        except NoReaders:
            pass
        except VersionChanged as error:
            self.file.unlink()
            self._fail(error)
        except OSError as error:
            self.context.disk_log.record_failure(error)
            self._has_failed = True
        except RegistryError as error:
            waiter.fail(error)
        except Exception:
            self._log_failure(Failure())
            waiter.fail(Unavailable("the blocks failed unexpectedly"))
        finally:
            for block in fetch.run:
                if self._fetches.get(block) is fetch:
                    del self._fetches[block]
            self.changes.notify()
            self._close_if_unused()

    def _record_block(self, block: int) -> None:
        self._fetches.pop(block, None)
        self._trusted.add(block)
        self.complete_if_due()

    async def _complete(self, completion: BlockWaiter) -> None:
        """Fetch what is missing, in order; hash all, and keep the blob or mark it as wrong."""
        for block in range(self.file.blocks):
            last = last_block(Span(0), block * BLOCK, self.version.size - 1)
            while not self.is_present(block):
                await self.advance(completion, block, last)
                completion.check()
        while not self.is_verified and not self.file.claim_all():
            self.check_state()
            await completion.wait(POLL)
        if self.is_verified:
            return
        state = await finish_blocks(self.context, self._digest, self.file)
        if state is BlockFileState.COMPLETE:
            self._mark_verified()
        elif state is BlockFileState.CORRUPT:
            self._log.error("{name}: the blocks of the blob do not match its digest", name=self._name)
        self.check_state()

    def _end_completion(self, outcome: Failure | None) -> None:
        self.is_completing = False
        error = outcome.value if outcome is not None else None
        if isinstance(error, OSError):
            self.context.disk_log.record_failure(error)
            self._has_failed = True
            self.file.unlink()
        elif outcome is not None and not outcome.check(RelayRequired, RegistryError):
            self._log_failure(outcome)
            self.file.unlink()
        self.changes.notify()
        if not self._readers and self._lingering is None:
            self._linger()

    def _mark_verified(self) -> None:
        self.is_verified = True
        self._link()
        self.changes.notify()

    def _link(self) -> None:
        Deferred.fromCoroutine(self._links.link(self._consented)).addErrback(self._log_failure)

    def _fail(self, error: Exception) -> None:
        """Cut all readers off."""
        self._end()
        for reader in tuple(self._readers):
            reader.fail(error)
        self.changes.notify()

    def _end(self) -> None:
        """Let new readers open the file again."""
        if not self._has_ended:
            self._has_ended = True
            self._ended()

    def _linger(self) -> None:
        if self._file is None:
            self._end()
            self._close_if_unused()
        else:
            self._lingering = self.context.clock.callLater(LINGER, self._leave)

    def _leave(self) -> None:
        """End if the readers have left for good, and let go of the blocks that are still missing."""
        self._lingering = None
        if self.is_completing:
            return
        self._end()
        now = self.context.clock.seconds()
        if self._file is not None and self._file.state(now) is BlockFileState.COMPLETE:
            self._mark_verified()
        for fetch in set(self._fetches.values()):
            fetch.interrupt(NoReaders())
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        is_used = self._readers or self._fetches or self._lingering is not None or self.is_completing
        if self._has_ended and not is_used and self._file is not None:
            self._file.close()
            self._file = None

    def _log_failure(self, failure: Failure) -> None:
        self._log.failure("the blocks of {name} failed unexpectedly", failure=failure, name=self._name)
