"""Contents in a bucket that were opened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IReactorTime
from zope.interface import implementer

from ...body.consumers import CoroutineProducer
from ...interfaces import Answer, IBody, IBucketBlob
from ...oci.digest import Descriptor, Digest
from ...oci.errors import BrokenOff, Unreachable
from ...oci.header_fields import ContentRange
from .blocking_bucket import ObjectReader


class ObjectSource(Protocol):
    """Opens the objects of contents."""

    async def open_range(self, digest: Digest, first: int, end: int) -> ObjectReader:
        """Open a range, its end exclusive.

        :raises OSError: if that fails.
        """

    async def report_corrupt(self, digest: Digest) -> None:
        """Report that the object did not match its digest."""

    async def locate(self, digest: Digest, size: int) -> str | None:
        """Return a URL for clients; None if they are not to be redirected."""


async def _unchecked(_: ObjectReader) -> None:
    """Check nothing: a range cannot be verified."""


@implementer(IBucketBlob)
class OpenObject:
    """A content in a bucket; no byte is read before it is wanted.

    It holds no resources, so that several users may share it.
    """

    def __init__(self, digest: Digest, size: int, source: ObjectSource, clock: IReactorTime) -> None:
        self.size = size
        self._digest = digest
        self._source = source
        self._clock = clock

    def body(self, descriptor: Descriptor, segments: Sequence[bytes | ContentRange]) -> IBody:
        """Return the body; the whole content is verified, ranges are not."""
        if list(segments) != [self._range_from(0)]:
            return ObjectBody(descriptor, segments, self._open_range, self.close, self._clock)
        return ObjectBody(descriptor, segments, self._open_verified, self.close, self._clock, self._check)

    def close(self) -> None:
        """Do nothing."""

    async def open(self, offset: int) -> Answer:
        """Open the content at an offset; a corrupt object is deleted and its delivery fails."""
        range_ = self._range_from(offset)
        try:
            reader = await (self._open_range(range_) if offset else self._open_verified(range_))
        except OSError as error:
            raise Unreachable("the object store failed") from error
        descriptor = Descriptor(None, None, range_.length)

        async def open_reader(_: ContentRange) -> ObjectReader:
            return reader

        if offset:
            content = ObjectBody(descriptor, (range_,), open_reader, reader.close, self._clock)
            return Answer(content, 206, content_range=range_)
        return Answer(ObjectBody(descriptor, (range_,), open_reader, reader.close, self._clock, self._check))

    async def presigned_url(self) -> str | None:
        return await self._source.locate(self._digest, self.size)

    async def _check(self, body: ObjectReader) -> None:
        if not body.is_verified():
            await self._source.report_corrupt(self._digest)
            raise BrokenOff("the object does not match its digest")

    def _range_from(self, offset: int) -> ContentRange:
        return ContentRange(offset, self.size - 1, self.size)

    async def _open_range(self, range_: ContentRange) -> ObjectReader:
        return await self._source.open_range(self._digest, range_.first, range_.last + 1)

    async def _open_verified(self, range_: ContentRange) -> ObjectReader:
        reader = await self._open_range(range_)
        reader.start_verifying(self._digest)
        return reader


@implementer(IBody)
class ObjectBody:
    """Ranges of an object with bytes between them; a stalled read fails the delivery.

    :param check: called before the last chunk of a range is written; if it raises, the chunk is not written.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        segments: Sequence[bytes | ContentRange],
        open_reader: Callable[[ContentRange], Awaitable[ObjectReader]],
        release: Callable[[], None],
        clock: IReactorTime,
        check: Callable[[ObjectReader], Awaitable[None]] = _unchecked,
    ) -> None:
        self.descriptor = descriptor
        self._check = check
        self._segments = segments
        self._open_range = open_reader
        self._release = release
        self._clock = clock

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        producer = CoroutineProducer(consumer, self._clock, self._release)
        return producer.follow(self._deliver(producer))

    def discard(self) -> None:
        self._release()

    async def _deliver(self, producer: CoroutineProducer) -> None:
        producer.register()
        try:
            for segment in self._segments:
                if isinstance(segment, bytes):
                    await producer.ready()
                    producer.write(segment)
                else:
                    await self._deliver_part(producer, segment)
        except OSError as error:
            raise BrokenOff("the object store failed while the object was read") from error

    async def _deliver_part(self, producer: CoroutineProducer, range_: ContentRange) -> None:
        """Read each chunk while the one before it is written."""
        reader = await self._open_range(range_)
        next_chunk = Deferred.fromCoroutine(reader.read_chunk())
        try:
            remaining = range_.length
            while remaining:
                chunk = await next_chunk
                if not chunk or len(chunk) > remaining:
                    raise BrokenOff("the object's size has changed")
                remaining -= len(chunk)
                if remaining:
                    next_chunk = Deferred.fromCoroutine(reader.read_chunk())
                else:
                    await self._check(reader)
                await producer.ready()
                producer.write(chunk)
        finally:
            reader.close()
            next_chunk.addErrback(lambda _: None)  # nothing waits for it any more
            next_chunk.cancel()
