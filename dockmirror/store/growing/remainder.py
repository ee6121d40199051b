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
from .hashing import Hashing
from .offer import offered


def passable(length: int, size: int | None) -> int:
    """Up to where a blob of which so many bytes have come may be given away unverified."""
    return max(0, length - HOLD if size is None else min(length, size - HOLD))


class Remainder:
    """What was there of a blob when the disk was full.

    :ivar reach: up to where readers read the file; then they go on from here.
    :param held: the bytes from there to where the hashing stands.
    """

    def __init__(self, hashing: Hashing, held: bytes, size: int | None, clock: IReactorTime) -> None:
        self.reach = hashing.hashed - len(held)
        self._hashing = hashing
        self._held = held
        self._size = size
        self._clock = clock

    def content(self, source: ISource, first: int, end: int | None) -> IContent:
        """The bytes from ``first`` on, to the end where none is given.

        A part that begins behind what was there cannot be verified, as no part can that is passed through.
        """
        length = None if end is None else end - first
        if first > self._hashing.hashed:
            return Part(_Fetched(source, first, self._clock), 0, length)
        fetched = _Fetched(source, self._hashing.hashed, self._clock)
        rest = _Rest(fetched, self._held, self._hashing.copy(), self._size)
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
    held: bytes
    hashing: Hashing
    size: int | None
    descriptor = Descriptor()

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        return Deferred.fromCoroutine(self._deliver(_Holding(consumer, self.held, self.hashing, self.size)))

    def discard(self) -> None:
        self.content.discard()

    async def _deliver(self, holding: _Holding) -> None:
        await self.content.deliver(holding)
        await holding.complete()


class _Holding(Onward):
    def __init__(self, consumer: IConsumer, held: bytes, hashing: Hashing, size: int | None) -> None:
        super().__init__(consumer)
        self._hashing = hashing
        self._passed = hashing.hashed - len(held)
        self._held = deque([held])
        self._size = size

    def write(self, data: bytes) -> None:
        self._hashing.update(data)
        if self._size is None or self._hashing.hashed <= self._size:  # else it is wrong already
            self._held.append(data)
        self._pass_on(passable(self._hashing.hashed, self._size))

    async def complete(self) -> None:
        """Lets the end go."""
        if self._size not in (None, self._hashing.hashed) or not await self._hashing.verified():
            raise Corrupt("the upstream's content is not the blob")
        self._pass_on(self._hashing.hashed)

    def _pass_on(self, until: int) -> None:
        while self._held and self._passed + len(self._held[0]) <= until:
            piece = self._held.popleft()
            self._passed += len(piece)
            if piece:
                self.consumer.write(piece)
