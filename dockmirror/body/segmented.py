"""A content that comes by several connections at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer, IReactorTime
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.errors import RegistryError, Unreachable
from ..oci.ranges import ContentRange
from .early_stop import EarlyStopConsumer
from .segment import OpenRange, Segment
from .sequential import SequentialConsumer

PIECE = 4 * 1024 * 1024
"""Bytes of a part that is asked for by itself."""


@implementer(IBody)
class SegmentedBody:
    """A content of which later parts are fetched while the first still comes, and written in order.

    A first part asked for ahead shows whether there are parts to be had.  Until it is given, the content
    itself goes on, past the part where that is late; where it is refused the content goes on to its end.
    No more than ``segments`` connections are at work, and no more than as many parts are held.
    Where one is refused later, there is one connection less from then on.

    :param content: the bytes from ``part.first`` to ``part.last``.
    :param open_range: given offsets, inclusive, opens just that part.
    :param piece: bytes of a part.
    """

    def __init__(
        self,
        content: IBody,
        part: ContentRange,
        open_range: OpenRange,
        segments: int,
        clock: IReactorTime,
        piece: int = PIECE,
    ) -> None:
        self.descriptor = content.descriptor
        self._content = content
        self._part = part
        self._open_range = open_range
        self._segments = segments
        self._clock = clock
        self._piece = piece

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``.

        :raises Unreachable: also where a part was refused: whoever asks for the rest anew is told why.
        """

        def ahead(first: int, last: int) -> Segment:
            return Segment(first, last, self._open_range, self._clock)

        delivery = _SegmentedDelivery(self._part, ahead, self._segments, self._piece)
        return Deferred.fromCoroutine(delivery.run(self._content, consumer))

    def discard(self) -> None:
        """See ``IBody``."""
        self._content.discard()


class _SegmentedDelivery:
    """What is asked for of one content, and in which order it is passed on.

    :param ahead: makes a part, which is not asked for yet.
    """

    def __init__(
        self, part: ContentRange, ahead: Callable[[int, int], Segment], segments: int, piece: int
    ) -> None:
        self._first = part.first
        self._last = part.last
        self._make = ahead
        self._segments = segments
        self._piece = piece
        self._ahead: deque[Segment] = deque()
        self._leading = True
        self._proven = False  # that there are parts to be had
        self._width = 2  # how many connections may be at work
        self._distance = piece
        self._next = part.first + piece

    async def run(self, content: IBody, consumer: IConsumer) -> None:
        to = SequentialConsumer(consumer)
        try:
            self._ask_ahead()
            await self._lead(content, to)
            while self._ahead:
                await self._ahead[0].pass_on(to)
                self._ahead.popleft()
                self._ask_ahead()
        except RegistryError as error:
            if self._leading or isinstance(error, Unreachable):
                raise
            raise Unreachable(f"a part was refused: {error}") from error
        finally:
            for each in self._ahead:
                each.leave()
            to.finish()

    async def _lead(self, content: IBody, to: SequentialConsumer) -> None:
        """Takes the content up to the first part that comes by itself, or to its end."""
        leading = _LeadingConsumer(to, self._first, self._stop)
        try:
            await leading.forward(content)
        except (CancelledError, Unreachable):
            if not leading.has_enough:
                raise
        self._leading = False
        if leading.has_enough:
            self._ask_ahead()
        else:
            self._drop_all()

    def _stop(self, end: int) -> int | None:
        """Where the content, which has come up to there, is to be left; None where it goes on."""
        if not self._ahead or end < self._ahead[0].first:
            return None
        if self._ahead[0].given:
            return self._ahead[0].first
        self._drop_all()
        self._distance *= 2
        self._next = end + self._distance
        self._ask_ahead()
        return None

    def _drop_all(self) -> None:
        while self._ahead:
            self._ahead.popleft().leave()

    def _ask_ahead(self) -> None:
        """The last connection is not given up between two parts."""
        while self._next <= self._last and len(self._ahead) + self._leading < self._width:
            last = self._last if self._width == 1 else min(self._next + self._piece - 1, self._last)
            ahead = self._make(self._next, last)
            self._next = last + 1
            self._ahead.append(ahead)
            ahead.begin(self._told)

    def _told(self, ahead: Segment) -> None:
        if ahead.error is not None:
            self._width = max(1, self._width - 1)
            if not self._proven:
                self._ahead.remove(ahead)
        elif not self._proven:
            self._proven = True
            self._width = self._segments
            self._ask_ahead()


class _LeadingConsumer(EarlyStopConsumer):
    """Passes a content on, until it is to be left.

    :param stop: is asked at each piece, with the offset of its end.
    """

    def __init__(self, consumer: IConsumer, position: int, stop: Callable[[int], int | None]) -> None:
        super().__init__(consumer)
        self._position = position
        self._stop = stop

    def forward_piece(self, data: bytes) -> None:
        stop = self._stop(self._position + len(data))
        self.has_enough = stop is not None
        self.consumer.write(data if stop is None else data[: stop - self._position])
        self._position += len(data)
