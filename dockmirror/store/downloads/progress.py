"""The progress of a download, and its readers, each with its own pace, end and failure."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as Elapsed
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ...body.bodies import TAIL_HOLDBACK, releasable_length
from ...body.consumers import CoroutineProducer
from ...concurrency.coroutines import Changes
from ...interfaces import IBody, IDownloadReader, ISource
from ...oci.digest import Descriptor
from ...oci.errors import RangeInvalid, Unavailable
from ...oci.header_fields import ContentRange, Range, Span
from ...oci.request import Repository
from ..file_body import FileReader, ITransfer, choose_transfer
from .context import LINGER, MAX_WAIT, DiskFullFallback, RestOfPart


class DownloadProgress:
    """The length and the state of a download, which it updates, and its readers.

    A change wakes only the readers that wait for one: a thousand slow ones cost the writer nothing.

    :ivar file: None before it is opened, and while the download restarts.
    :ivar has_answer: the upstream has answered, with the ``size`` or without one.
    :ivar is_verified: the file is complete and matches the digest.
    :ivar fallback: fetches the rest for each reader if the disk is full.
    :ivar repositories: the repositories for which the upstream gave the blob, in the store's names.
    :param reader_left: called when a reader has left.
    """

    def __init__(self, clock: IReactorTime, reader_left: Callable[[], None]) -> None:
        self.clock = clock
        self.file: FileReader | None = None
        self.length = 0
        self.has_answer = self.is_verified = False
        self.size: int | None = None
        self.fallback: DiskFullFallback | None = None
        self.repositories: set[Repository] = set()
        self._reader_left = reader_left
        self._readers: dict[DownloadReader, None] = {}
        self._changes = Changes()
        self._since = (0.0, 0)
        self._has_ended = False

    @property
    def has_ended(self) -> bool:
        """True once nothing more is written to the file."""
        return self._has_ended

    @property
    def readers(self) -> tuple[DownloadReader, ...]:
        """The present readers, in the order in which they came."""
        return tuple(self._readers)

    @property
    def readable_length(self) -> int:
        """The number of bytes that may be read: without the tail until the digest is verified."""
        if self.is_verified:
            return self.length
        if self.fallback is not None:
            return self.fallback.start
        return releasable_length(self.length, self.size)

    @property
    def pace(self) -> float | None:
        """Bytes per second since the file was opened or continued; None while none have come."""
        seconds, length = self._since
        count = self.length - length
        elapsed = self.clock.seconds() - seconds
        return count / elapsed if count > 0 and elapsed > 0 else None

    def seconds_until(self, part: ContentRange) -> float:
        if self.is_verified or part.last < self.readable_length:
            return 0.0
        if self.size is None:
            return math.inf
        end = part.last + 1 if part.last < self.size - TAIL_HOLDBACK else self.size
        return (end - self.length) / self.pace if self.pace else math.inf

    def add(self, reader: DownloadReader) -> None:
        self._readers[reader] = None

    def remove(self, reader: DownloadReader) -> None:
        """Remove a reader, unless it was removed before."""
        if reader in self._readers:
            del self._readers[reader]
            self._reader_left()
            if self._has_ended and not self._readers:
                self._close()

    def change(self) -> Deferred[None]:
        """Return a Deferred that fires at the next change."""
        return self._changes.next()

    def set_file(self, file: FileReader, length: int) -> None:
        self._close()
        self.file, self.length = file, length
        self.restart_pace()
        self._changes.notify()

    def forget_departed(self) -> None:
        """Forget the repositories of readers that have left before a byte was received."""
        self.repositories = {each.repository for each in self.readers if each.is_granted}

    def restart_pace(self) -> None:
        self._since = (self.clock.seconds(), self.length)

    def set_size(self, size: int | None) -> None:
        """Set the size that the upstream reports; readers that were given another one fail."""
        if size is None and self.size is not None:
            return
        self.has_answer, self.size = True, size
        for reader in self.readers:
            if reader.size not in (None, size):
                reader.fail(Unavailable("the upstream reports another size than before"))
        self._changes.notify()

    def set_length(self, length: int) -> None:
        self.length = length
        self._changes.notify()

    def mark_verified(self) -> None:
        if not self.is_verified:
            self.set_size(self.length)
            self.is_verified = True
            self._changes.notify()

    def restart(self, error: Exception) -> None:
        """Give the file up, and fail the readers that have bytes of it: no other file may complete them."""
        self._close()
        self.length, self.is_verified = 0, False
        for reader in self.readers:
            if reader.has_bytes:
                reader.fail(error)

    def end(self, error: Exception | None, fallback: DiskFullFallback | None) -> None:
        """End with an error, which fails the readers, or without one."""
        self._has_ended, self.fallback = True, fallback
        if error is not None:
            for reader in self.readers:
                reader.fail(error)
        self._changes.notify()
        if not self._readers:
            self._close()

    def _close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


@implementer(IDownloadReader, IBody)
class DownloadReader:
    """One reader of a download, and its body, which is read from the file while that grows.

    :ivar size: the blob's size as reported to this reader.
    :ivar is_granted: the upstream gives this reader the blob.
    :ivar has_bytes: bytes of the file were delivered.
    :ivar rest: fetches the rest of its part if that takes too long to come; None if the reader waits.
    """

    descriptor = Descriptor()

    def __init__(
        self, progress: DownloadProgress, repository: Repository, source: ISource, joined: bool
    ) -> None:
        self.source = source
        self.joined = joined
        self.size: int | None = None
        self.is_granted = self.has_bytes = False
        self.rest: RestOfPart | None = None
        self._progress = progress
        self.repository = repository
        self._failure: Exception | None = None
        self._on_failure: Callable[[Exception], None] = lambda _: None
        self._change: Deferred[None] | None = None
        self._part: ContentRange | None = None
        self._position = 0

    def grant(self) -> None:
        """Record that the upstream gives this reader the blob for its repository."""
        self.is_granted = True
        self._progress.repositories.add(self.repository)

    def choose_part(self, span: Span) -> ContentRange | None:
        if self.size is not None:
            try:
                (part,) = Range((span,)).resolve(self.size)
            except RangeInvalid:
                self.leave()
                raise
            beginning = ContentRange(part.first, part.first, part.size)
            is_next = part.first <= self._progress.length
            if is_next or self._progress.seconds_until(beginning) <= MAX_WAIT:
                return part
        self.leave()
        return None

    def change(self) -> Deferred[None]:
        """Return a Deferred that fires at the next change, and fails if the reader fails or leaves."""
        self._change = self._progress.change()
        return self._change

    async def read(self, part: ContentRange) -> bytes | None:
        """Return a part as soon as it has arrived; None if that cannot be, or the reader has left.

        :raises Exception: the failure of this reader.
        """
        progress = self._progress
        while progress.file is None or progress.length <= part.last:
            self.check()
            if progress.fallback is not None or self not in progress.readers:
                return None
            try:
                await self.change()
            except CancelledError:
                if self in progress.readers:  # it was not by ``leave``
                    raise
        with suppress(OSError):
            return await progress.file.read(part.first, part.length)
        return None

    def check(self) -> None:
        """Check that the reader has not failed.

        :raises Exception: its failure.
        """
        if self._failure is not None:
            raise self._failure

    def fail(self, error: Exception) -> None:
        """End the reading; the first error counts."""
        if self._failure is None:
            self._failure = error
            if self._change is not None and not self._change.called:
                self._change.errback(error)
            self._on_failure(error)
            self.leave()

    def leave(self) -> None:
        if self.rest is not None and self in self._progress.readers:
            self._stay(LINGER)
        self._progress.remove(self)
        if self._change is not None:
            self._change.cancel()

    def _stay(self, seconds: float) -> None:
        """Let the download have a reader for so many seconds more."""
        if not self._progress.has_ended:
            staying = DownloadReader(self._progress, self.repository, self.source, joined=True)
            self._progress.add(staying)
            self._progress.clock.callLater(seconds, staying.leave)

    def content(self, descriptor: Descriptor, part: ContentRange | None) -> IBody:
        self.descriptor, self._part = descriptor, part
        self._position = part.first if part else 0
        return self

    def discard(self) -> None:
        self.leave()

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        producer = CoroutineProducer(consumer, self._progress.clock, self.leave)
        transfer = choose_transfer(producer, consumer)
        self._on_failure = producer.fail
        delivered = producer.follow(self._deliver(producer, transfer)).addErrback(as_unavailable)
        return delivered.addCallback(self._deliver_rest, consumer)

    @property
    def _end(self) -> int | None:
        """The offset of the end; None while that is unknown or unverified."""
        if self._part is not None:
            return self._part.last + 1
        return self._progress.length if self._progress.is_verified else None

    @property
    def _readable(self) -> int:
        """The number of bytes that may be read now."""
        readable = self._progress.readable_length
        if self._part is not None:
            readable = min(readable, self._part.last + 1)
        return readable - self._position

    async def _deliver(self, producer: CoroutineProducer, transfer: ITransfer) -> None:
        producer.register()
        self.check()
        while self._position != self._end:
            if self._readable > 0:
                await producer.ready()
                file, length = self._progress.file, self._readable
                if file is not None and length > 0:  # else the download was restarted
                    sent = transfer.try_send(file, self._position, length)
                    if sent is None:
                        sent = await self._read_then_send(producer, transfer, file, length)
                    self._position += sent
                    self.has_bytes = self.has_bytes or sent > 0
            elif self._progress.fallback is not None or not await self._wait():
                return

    async def _wait(self) -> bool:
        """Wait for the next byte of the part; False if that takes too long, and a request may be sooner."""
        waiting = Deferred.fromCoroutine(self._wait_for_byte())
        if self.rest is not None:
            waiting.addTimeout(MAX_WAIT, self._progress.clock)
        with suppress(Elapsed):
            await waiting
            return True
        return False

    async def _wait_for_byte(self) -> None:
        """Wait for as long as it takes; a change may be that of a byte before the part."""
        while self._readable <= 0 and self._progress.fallback is None and self._position != self._end:
            await self.change()

    async def _read_then_send(
        self, producer: CoroutineProducer, transfer: ITransfer, file: FileReader, length: int
    ) -> int:
        """Read in a thread, then send; bytes that come while the consumer is paused are read again later."""
        send = await transfer.read_then_send(file, self._position, length)
        return 0 if producer.paused or file is not self._progress.file else send()

    def _deliver_rest(self, _: None, consumer: IConsumer) -> Deferred[None] | None:
        """Deliver what the disk has not taken; the file is closed already, which frees its space."""
        end, fallback = self._end, self._progress.fallback
        if self._position == end:
            return None
        if fallback is None and self.rest is not None and self._part is not None:
            return self.rest.deliver(self._position, self._part.last, consumer)
        if fallback is None:
            return None
        end = None if end == self._progress.size else end
        return fallback.content(self.source, self._position, end).deliver(consumer)


def as_unavailable(failure: Failure) -> NoReturn:
    """Convert errors of the disk to a registry's error, the only kind that clients get."""
    failure.trap(OSError)
    raise Unavailable("the store gives no more of it") from failure.value
