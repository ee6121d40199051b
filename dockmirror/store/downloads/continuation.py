"""A blob from an offset on: parsed from a response, or fetched by each reader when the disk is full."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IReactorTime
from zope.interface import implementer

from ...body.verified import CorruptContent, TailHoldback
from ...body.wrappers import ResumingBody, Slice
from ...interfaces import Answer, IBody, ISource
from ...oci.descriptor import Descriptor
from ...oci.digest import Digest, Verifier
from ...oci.errors import RegistryError, Unavailable


class RestartRequired(Exception):
    """The partial file cannot be continued: the blob is to be fetched from its start.

    :ivar error: fails the readers who have been given bytes of that file.
    """

    def __init__(self, error: RegistryError) -> None:
        super().__init__(str(error))
        self.error = error


class PossiblyCorrupt(RestartRequired):
    """All was fetched, in parts, and is wrong; nobody is to blame before it was fetched in one piece."""


class Rejected(CorruptContent):
    """The bytes are not the blob, and the address that sent them was told so."""


@frozen
class RangeResponse:
    """A blob's bytes from the requested offset on, and its size; None where the upstream does not give it.

    :ivar reject: see ``Answer``.
    """

    content: IBody
    size: int | None
    reject: Callable[[Digest], None] | None


def parse_range_response(answer: Answer, offset: int) -> RangeResponse:
    """Parse the answer to a request for the blob from the offset on.

    :raises RestartRequired: when it is another range.
    :raises Unavailable: when it is no blob at all.
    """
    part = answer.content_range
    if answer.status == 200:
        content = Slice(answer.body, offset) if offset else answer.body
        return RangeResponse(content, answer.body.descriptor.size, answer.reject)
    if part is not None and part.first == offset and part.size in (None, part.last + 1):
        return RangeResponse(answer.body, part.size, answer.reject)
    answer.body.discard()
    if part is None:
        raise Unavailable("the upstream's answer is no blob", upstream_status=answer.upstream_status)
    raise RestartRequired(Unavailable("the upstream does not go on where it broke off", upstream_status=206))


@frozen
class DiskFullFallback:
    """Lets each reader fetch by itself what the disk has not taken.

    :ivar verifier: was given the bytes that were there, ``length`` many.
    :ivar tail: the last of them, which no reader was given.
    :ivar size: the blob's; None where the upstream does not give it.
    """

    verifier: Verifier
    length: int
    tail: bytes
    size: int | None
    clock: IReactorTime

    @property
    def start(self) -> int:
        """The offset up to which readers read the file."""
        return self.length - len(self.tail)

    def content(self, source: ISource, first: int, end: int | None) -> IBody:
        """Return the bytes from ``first`` on, up to ``end`` or else all.

        A part that begins behind what was there cannot be verified, like any part that is passed through.
        """
        length = None if end is None else end - first
        if first > self.length:
            return Slice(_Rest(self, source, first), 0, length)
        return Slice(_Rest(self, source, self.length), first - self.start, length)


@implementer(IBody)
@frozen
class _Rest:
    """A blob from an offset on, resumed when it breaks off; with the tail, and verified, behind the file."""

    fallback: DiskFullFallback
    source: ISource
    offset: int
    descriptor = Descriptor()

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        there = self.fallback
        if self.offset > there.length:
            return Deferred.fromCoroutine(self._deliver(consumer))
        holdback = TailHoldback(consumer, there.verifier.copy(), there.size, there.length, there.tail)
        return Deferred.fromCoroutine(self._deliver(holdback)).addCallback(lambda _: holdback.release_tail())

    def discard(self) -> None:
        """Nothing was requested yet."""

    async def _deliver(self, consumer: IConsumer) -> None:
        await ResumingBody(await self._open(0), self._open, self.fallback.clock).deliver(consumer)

    async def _open(self, count: int) -> IBody:
        offset = self.offset + count
        return parse_range_response(await self.source.open(offset), offset).content
