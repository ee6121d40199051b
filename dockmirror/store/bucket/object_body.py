"""Stored contents that were opened in a bucket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IReactorTime
from zope.interface import implementer

from ...interfaces import Answer, IBody, IBucketBlob
from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.errors import BrokenOff, Unreachable
from ...oci.ranges import ContentRange
from ..coroutine_producer import CoroutineProducer
from .blocking_bucket import ObjectReader


class ObjectSource(Protocol):
    """Where the objects of contents lie."""

    async def open_range(self, digest: Digest, first: int, end: int) -> ObjectReader:
        """Opens a part, its end exclusive.

        :raises OSError: where it cannot be.
        """

    async def report_corrupt(self, digest: Digest) -> None:
        """The object was not the content of its name."""

    async def presigned_url(self, digest: Digest) -> str | None:
        """See ``IBucketBlob``."""


async def _unchecked(_: ObjectReader) -> None:
    """Nothing can be told of a part."""


@implementer(IBucketBlob)
class OpenObject:
    """A content that lies in a bucket, of which nothing is read before it is wanted.

    It holds nothing: whoever is given one may use it more than once, and share it.
    """

    def __init__(self, digest: Digest, size: int, origin: ObjectSource, clock: IReactorTime) -> None:
        self.size = size
        self._digest = digest
        self._origin = origin
        self._clock = clock

    def body(self, descriptor: Descriptor, segments: Sequence[bytes | ContentRange]) -> IBody:
        """See ``IStoredContent``; the whole, asked for alone, is verified."""
        if list(segments) != [self._part(0)]:
            return ObjectBody(descriptor, segments, self._opened, self.close, self._clock)
        return ObjectBody(descriptor, segments, self._opened_whole, self.close, self._clock, self._check)

    def close(self) -> None:
        """See ``IStoredContent``."""

    async def open(self, offset: int) -> Answer:
        """See ``IBucketBlob``; one that proves to be wrong is deleted, and breaks off."""
        part = self._part(offset)
        try:
            body = await (self._opened(part) if offset else self._opened_whole(part))
        except OSError as error:
            raise Unreachable("the object store does not give it") from error
        descriptor = Descriptor(None, None, part.length)

        async def opened(_: ContentRange) -> ObjectReader:
            return body

        if offset:
            content = ObjectBody(descriptor, (part,), opened, body.close, self._clock)
            return Answer(content, 206, content_range=part)
        return Answer(ObjectBody(descriptor, (part,), opened, body.close, self._clock, self._check))

    async def presigned_url(self) -> str | None:
        """See ``IBucketBlob``."""
        return await self._origin.presigned_url(self._digest)

    async def _check(self, body: ObjectReader) -> None:
        if not body.is_verified():
            await self._origin.report_corrupt(self._digest)
            raise BrokenOff("the object is not the content of its name")

    def _part(self, offset: int) -> ContentRange:
        return ContentRange(offset, self.size - 1, self.size)

    async def _opened(self, part: ContentRange) -> ObjectReader:
        return await self._origin.open_range(self._digest, part.first, part.last + 1)

    async def _opened_whole(self, part: ContentRange) -> ObjectReader:
        body = await self._opened(part)
        body.start_verifying(self._digest)
        return body


@implementer(IBody)
class ObjectBody:
    """Parts of an object, and bytes between them, read while they are written; one that stalls breaks off.

    :param check: is given what was read, before its last piece is written; it keeps that back by raising.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        segments: Sequence[bytes | ContentRange],
        opened: Callable[[ContentRange], Awaitable[ObjectReader]],
        release: Callable[[], None],
        clock: IReactorTime,
        check: Callable[[ObjectReader], Awaitable[None]] = _unchecked,
    ) -> None:
        self.descriptor = descriptor
        self._check = check
        self._segments = segments
        self._opened = opened
        self._release = release
        self._clock = clock

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``."""
        pace = CoroutineProducer(consumer, self._clock, self._release)
        return pace.follow(self._deliver(pace))

    def discard(self) -> None:
        """See ``IBody``."""
        self._release()

    async def _deliver(self, pace: CoroutineProducer) -> None:
        pace.register()
        try:
            for segment in self._segments:
                if isinstance(segment, bytes):
                    await pace.ready()
                    pace.write(segment)
                else:
                    await self._deliver_part(pace, segment)
        except OSError as error:
            raise BrokenOff("the object store gives no more of it") from error

    async def _deliver_part(self, pace: CoroutineProducer, part: ContentRange) -> None:
        """Each piece comes while the one before it is written."""
        body = await self._opened(part)
        coming = Deferred.fromCoroutine(body.read_chunk())
        try:
            left = part.length
            while left:
                piece = await coming
                if not piece or len(piece) > left:
                    raise BrokenOff("the object is not as long as it was")
                left -= len(piece)
                if left:
                    coming = Deferred.fromCoroutine(body.read_chunk())
                else:
                    await self._check(body)
                await pace.ready()
                pace.write(piece)
        finally:
            body.close()
            coming.addErrback(lambda _: None)  # nobody waits for it any more
            coming.cancel()
