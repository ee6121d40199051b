"""A download's progress, and its readers, each of whom has a pace, an end and a failure of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ...body.verified import TAIL_HOLDBACK, releasable_length
from ...interfaces import IBody, IDownloadReader, IFileConsumer, ISource
from ...oci.consent import SAMPLED, Sample, sampled_part
from ...oci.descriptor import Descriptor
from ...oci.errors import Unavailable
from ...oci.ranges import ContentRange
from ...oci.reference import Repository
from ..coroutine_producer import CoroutineProducer
from ..file_body import CopyTransfer, FileReader, ITransfer, SendfileTransfer
from .context import DiskFullFallback


class DownloadProgress:
    """The part of a blob that is there, and its readers; the download says what changes.

    Only readers who wait for a change are told of it, once: a thousand slow ones cost the writer nothing.

    :ivar file: None before it was opened, and between one that was given up and the next.
    :ivar has_answer: the upstream has given the blob's size, or has given none: that is ``size`` then.
    :ivar is_verified: the file is the blob, whole and right.
    :ivar fallback: how readers go on by themselves, where the disk was full.
    :ivar repositories: those that the upstream gave the blob for, in the store's names.
    :param reader_left: is called when a reader has left.
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
        self._waiting: dict[Deferred[None], None] = {}
        self._since = (0.0, 0)
        self._has_ended = False

    @property
    def readers(self) -> tuple[DownloadReader, ...]:
        """The readers who are there, the longest first."""
        return tuple(self._readers)

    @property
    def readable_length(self) -> int:
        """The length of the file that may be read: its tail waits until the digest is right.  Only grows."""
        if self.is_verified:
            return self.length
        if self.fallback is not None:
            return self.fallback.start
        return releasable_length(self.length, self.size)

    @property
    def pace(self) -> float | None:
        """Bytes a second since the file was opened, or has gone on to grow; None while there are none."""
        seconds, length = self._since
        grown = self.length - length
        elapsed = self.clock.seconds() - seconds
        return grown / elapsed if grown > 0 and elapsed > 0 else None

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
        """Remove a reader who leaves; a second time changes nothing."""
        if reader in self._readers:
            del self._readers[reader]
            self._reader_left()
            if self._has_ended and not self._readers:
                self._close()

    def change(self) -> Deferred[None]:
        """Fire when something has become of the download."""
        waiting: Deferred[None] = Deferred(lambda waiting: self._waiting.pop(waiting, None))
        self._waiting[waiting] = None
        return waiting

    def opened(self, file: FileReader, length: int) -> None:
        self._close()
        self.file, self.length = file, length
        self.restart_pace()
        self._changed()

    def restart_pace(self) -> None:
        self._since = (self.clock.seconds(), self.length)

    def answered(self, size: int | None) -> None:
        """Take the size that the upstream gives; readers who were told another one fail."""
        if size is None and self.size is not None:
            return
        self.has_answer, self.size = True, size
        for reader in self.readers:
            if reader.size not in (None, size):
                reader.fail(Unavailable("the upstream tells another size than before"))
        self._changed()

    def grew(self, length: int) -> None:
        self.length = length
        self._changed()

    def verified(self) -> None:
        if not self.is_verified:
            self.answered(self.length)
            self.is_verified = True
            self._changed()

    def restarted(self, error: Exception) -> None:
        """Fail those who have bytes of the file that was given up: no other one may complete them."""
        self._close()
        self.length, self.is_verified = 0, False
        for reader in self.readers:
            if reader.has_bytes:
                reader.fail(error)

    def ended(self, error: Exception | None, fallback: DiskFullFallback | None) -> None:
        """Fail the readers, or have them go on with what there is."""
        self._has_ended, self.fallback = True, fallback
        if error is not None:
            for reader in self.readers:
                reader.fail(error)
        self._changed()
        if not self._readers:
            self._close()

    def _changed(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for each in waiting:
            if not each.called:  # one may have made another leave
                each.callback(None)

    def _close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


@implementer(IDownloadReader, IBody)
class DownloadReader:
    """One reader's place in a download, and the content that it is given: read behind the writer.

    :ivar size: the blob's, as this reader was told.
    :ivar is_granted: the upstream has said that this reader may have the blob.
    :ivar has_bytes: the reader was given bytes of the file.
    """

    descriptor = Descriptor()

    def __init__(
        self, progress: DownloadProgress, repository: Repository, source: ISource, joined: bool
    ) -> None:
        self.source = source
        self.joined = joined
        self.size: int | None = None
        self.is_granted = self.has_bytes = False
        self._progress = progress
        self._repository = repository
        self._failure: Exception | None = None
        self._on_failure: Callable[[Exception], None] = lambda _: None
        self._change: Deferred[None] | None = None
        self._part: ContentRange | None = None
        self._position = 0

    def grant(self) -> None:
        """Note that the upstream gives this reader the blob: the repository has it."""
        self.is_granted = True
        self._progress.repositories.add(self._repository)

    def seconds_until(self, part: ContentRange) -> float:
        return self._progress.seconds_until(part)

    def change(self) -> Deferred[None]:
        """Fire when something has become of the download; fail as the reader does, or when it leaves."""
        self._change = self._progress.change()
        return self._change

    async def sample(self) -> Sample | None:
        """Return a sample as soon as enough has come; None if that will not be, or the reader has left.

        :raises Exception: the failure of this reader.
        """
        progress = self._progress
        while progress.size and (progress.file is None or progress.length < min(progress.size, SAMPLED)):
            self.check()
            if progress.fallback is not None or self not in progress.readers:
                return None
            try:
                await self.change()
            except CancelledError:
                if self in progress.readers:  # it was not by ``leave``
                    raise
        if not progress.size or progress.file is None:
            return None
        part = sampled_part(progress.size)
        with suppress(OSError):
            return Sample(part, await progress.file.read(part.first, part.length))
        return None

    def check(self) -> None:
        """:raises Exception: why nothing more will come, if that is so."""
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
        self._progress.remove(self)
        if self._change is not None:
            self._change.cancel()

    def content(self, descriptor: Descriptor, part: ContentRange | None) -> IBody:
        self.descriptor, self._part = descriptor, part
        self._position = part.first if part else 0
        return self

    def discard(self) -> None:
        self.leave()

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        producer = CoroutineProducer(consumer, self._progress.clock, self.leave)
        moving: ITransfer = CopyTransfer(producer.write)
        if IFileConsumer.providedBy(consumer):
            moving = SendfileTransfer(producer.send_file)
        self._on_failure = producer.fail
        delivered = producer.follow(self._deliver(producer, moving)).addErrback(_as_unavailable)
        return delivered.addCallback(self._deliver_rest, consumer)

    @property
    def _end(self) -> int | None:
        """The offset of the end; None while it is not known, or not yet known to be right."""
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

    async def _deliver(self, producer: CoroutineProducer, moving: ITransfer) -> None:
        producer.register()
        self.check()
        while self._position != self._end:
            if self._readable > 0:
                await producer.ready()
                file, length = self._progress.file, self._readable
                if file is not None and length > 0:  # else the download was restarted
                    moved = moving.try_send(file, self._position, length)
                    if moved is None:
                        moved = await self._move_cold(producer, moving, file, length)
                    self._position += moved
                    self.has_bytes = self.has_bytes or moved > 0
            elif self._progress.fallback is not None:
                return
            else:
                await self.change()

    async def _move_cold(
        self, producer: CoroutineProducer, moving: ITransfer, file: FileReader, length: int
    ) -> int:
        """Read in a thread; what is not wanted when it comes is read again later, from the page cache."""
        move = await moving.read_then_send(file, self._position, length)
        return 0 if producer.paused or file is not self._progress.file else move()

    def _deliver_rest(self, _: None, consumer: IConsumer) -> Deferred[None] | None:
        """Go on without the file, which was closed by now, so that the disk has its space back."""
        end, fallback = self._end, self._progress.fallback
        if fallback is None or self._position == end:
            return None
        end = None if end == self._progress.size else end
        return fallback.content(self.source, self._position, end).deliver(consumer)


def _as_unavailable(failure: Failure) -> NoReturn:
    """A client is told nothing but the registry's errors."""
    failure.trap(OSError)
    raise Unavailable("the store gives no more of it") from failure.value
