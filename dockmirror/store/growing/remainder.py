"""The rest of a blob that a disk did not take, as each reader fetches it by itself."""

from __future__ import annotations

from collections import deque

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IReactorTime
from zope.interface import implementer

from ...content.onward import Onward
from ...content.part import Part
from ...content.resumed import Resumed
from ...content.verified import HOLD, Corrupt
from ...interfaces import IContent, ISource
from ...oci.descriptor import Descriptor
from ...oci.digest import Verifier
from .offer import offered


def passable(length: int, size: int | None) -> int:
    """Up to where a blob of which so many bytes have come may be given away unverified."""
    return max(0, length - HOLD if size is None else min(length, size - HOLD))


class Remainder:
    """What was there of a blob when the disk was full.

    :ivar reach: up to where readers read the file; then they go on from here.
    :param verifier: the check of as many bytes as there were.
    :param held: the last of them, from the reach on.
    """

    def __init__(
        self, verifier: Verifier, length: int, held: bytes, size: int | None, clock: IReactorTime
    ) -> None:
        self.reach = length - len(held)
        self._verifier = verifier
        self._length = length
        self._held = held
        self._size = size
        self._clock = clock

    def content(self, source: ISource, first: int, end: int | None) -> IContent:
        """The bytes from ``first`` on, to the end where none is given.

        A part that begins behind what was there cannot be verified, as no part can that is passed through.
        """
        length = None if end is None else end - first
        if first > self._length:
            return Part(_Fetched(source, first, self._clock), 0, length)
        fetched = _Fetched(source, self._length, self._clock)
        rest = _Rest(fetched, self._verifier.copy(), self._length, self._held, self._size)
        return Part(rest, first - self.reach, length)


@implementer(IContent)
@frozen
class _Fetched:
    """A blob from an offset on, asked for when it is delivered."""

    source: ISource
    offset: int
    clock: IReactorTime
    descriptor = Descriptor()

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        return Deferred.fromCoroutine(self._deliver(consumer))

    def discard(self) -> None:
        """Nothing was asked for yet."""

    async def _deliver(self, consumer: IConsumer) -> None:
        await Resumed(await self._open(0), self._open, self.clock).deliver(consumer)

    async def _open(self, count: int) -> IContent:
        offset = self.offset + count
        return offered(await self.source.open(offset), offset).content


@implementer(IContent)
@frozen
class _Rest:
    """The end of a blob, of which the beginning was hashed; the last of it waits until all is right."""

    content: IContent
    verifier: Verifier
    length: int
    held: bytes
    size: int | None
    descriptor = Descriptor()

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        holding = _Holding(consumer, self.verifier, self.length, self.held, self.size)
        return self.content.deliver(holding).addCallback(lambda _: holding.complete())

    def discard(self) -> None:
        self.content.discard()


class _Holding(Onward):
    def __init__(
        self, consumer: IConsumer, verifier: Verifier, length: int, held: bytes, size: int | None
    ) -> None:
        super().__init__(consumer)
        self._verifier = verifier
        self._length = length
        self._passed = length - len(held)
        self._held = deque([held])
        self._size = size

    def write(self, data: bytes) -> None:
        self._verifier.update(data)
        self._length += len(data)
        if self._size is None or self._length <= self._size:  # else it is wrong already
            self._held.append(data)
        self._pass_on(passable(self._length, self._size))

    def complete(self) -> None:
        """Lets the end go."""
        if self._size not in (None, self._length) or not self._verifier.verified():
            raise Corrupt("the upstream's content is not the blob")
        self._pass_on(self._length)

    def _pass_on(self, until: int) -> None:
        while self._held and self._passed + len(self._held[0]) <= until:
            piece = self._held.popleft()
            self._passed += len(piece)
            if piece:
                self.consumer.write(piece)
