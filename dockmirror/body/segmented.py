"""A body whose segments are fetched over several connections and delivered in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.digest import Descriptor
from ..oci.errors import RegistryError, Unreachable
from ..oci.header_fields import ContentRange
from .bodies import BytesBody, ResumingBody
from .consumers import EarlyStopConsumer, ProducerSwitch, SequentialConsumer

OpenRange = Callable[[int, int], Awaitable[IBody]]
"""Opens the bytes from one offset to another, inclusive, or fails with a ``RegistryError``."""


class Line(Protocol):
    """The connections to an upstream, which downloads report on."""

    def segments(self) -> int:
        """Return the number of connections that a blob may be fetched over now."""

    def record_open(self) -> None:
        """Record that a response has begun."""

    def record_close(self) -> None:
        """Record that a response has ended."""

    def record_bytes(self, count: int) -> None:
        """Record bytes that have arrived."""


@implementer(IConsumer, IPushProducer)
class Segment:
    """A part of a body that is fetched ahead, buffered, and delivered when its turn comes.

    Until its turn no back-pressure slows the fetch: the buffer is bounded by the part, and the connection
    is free the sooner.  A fetch that breaks off is resumed.

    :ivar has_begun: True once the upstream has begun to send it.
    :ivar error: why the fetch was given up before its turn.
    """

    def __init__(self, first: int, last: int, open_range: OpenRange, line: Line, clock: IReactorTime) -> None:
        self.first = first
        self.has_begun = False
        self.error: RegistryError | None = None
        self._last = last
        self._open_range = open_range
        self._line = line
        self._clock = clock
        self._next = first
        self._buffer: deque[bytes] = deque()
        self._fetching: Deferred[None] = succeed(None)
        self._on_change: Callable[[Segment], None] = _ignore
        self._switch = ProducerSwitch()
        self._consumer: IConsumer | None = None
        self._drained: Deferred[None] | None = None

    def begin(self, on_change: Callable[[Segment], None]) -> None:
        """Start the fetch.

        :param on_change: called when the upstream begins to send it, and when the fetch is given up.
        """
        self._on_change = on_change
        self._fetching = Deferred.fromCoroutine(self._fetch()).addErrback(self._give_up)

    async def deliver(self, consumer: IConsumer) -> None:
        """Write the whole part to the consumer; a fetch that was given up is tried once more.

        :raises RegistryError: when that fails, too.
        """
        self._consumer = consumer
        consumer.registerProducer(self, True)
        try:
            self._flush()
            await self._fetching
            if self.error is not None and not self._switch.stopped:
                self.error = None
                await self._fetch()
            await self._wait_until_drained()
        finally:
            self._consumer = None
            consumer.unregisterProducer()
        if self._switch.stopped:
            raise Unreachable("the consumer has gone")

    def cancel(self) -> None:
        self._buffer.clear()
        self._fetching.addErrback(lambda _: None)
        self._fetching.cancel()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        self._switch.begin(producer)

    def unregisterProducer(self) -> None:
        self._switch.end()

    def write(self, data: bytes) -> None:
        self._next += len(data)
        self._line.record_bytes(len(data))
        self._buffer.append(data)
        self._flush()

    def pauseProducing(self) -> None:
        self._switch.pauseProducing()

    def resumeProducing(self) -> None:
        """Write the buffer first, then resume the fetch."""
        self._switch.paused = False
        self._flush()
        if not self._switch.paused:
            self._switch.resumeProducing()

    def stopProducing(self) -> None:
        self._buffer.clear()
        self._switch.stopProducing()
        self._flush()

    async def _fetch(self) -> None:
        offset = self._next
        body = await self._open(offset)
        if not self.has_begun:
            self.has_begun = True
            self._on_change(self)
        self._line.record_open()
        try:
            await ResumingBody(body, lambda count: self._open(offset + count), self._clock).deliver(self)
        finally:
            self._line.record_close()

    async def _open(self, offset: int) -> IBody:
        if offset > self._last:  # the fetch broke off after the last byte
            return BytesBody(b"", Descriptor())
        return await self._open_range(offset, self._last)

    def _give_up(self, failure: Failure) -> None:
        failure.trap(RegistryError)
        assert isinstance(failure.value, RegistryError)
        self.error = failure.value
        self._on_change(self)

    def _flush(self) -> None:
        while self._buffer and self._consumer is not None and not self._switch.paused:
            self._consumer.write(self._buffer.popleft())
        if not self._buffer and self._drained is not None:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def _wait_until_drained(self) -> Deferred[None]:
        if not self._buffer:
            return succeed(None)
        self._drained = Deferred(self._abandon)
        return self._drained

    def _abandon(self, _: Deferred[None]) -> None:
        self._drained = None


def _ignore(_: Segment) -> None:
    """Do nothing: the fetch has not begun."""


PIECE = 4 * 1024 * 1024
"""Bytes of a segment."""


@implementer(IBody)
class SegmentedBody:
    """A body whose later segments are fetched while the first bytes still arrive, delivered in order.

    The first segment that is fetched ahead shows whether the upstream serves ranges.  Until it arrives the
    leading body goes on, past that segment if it is late; if it is refused the leading body goes on to its
    end.  At most ``line.segments()`` connections are open, and at most as many segments buffered.  Each
    segment that is refused later costs one connection.

    :param body: the leading body: the bytes from ``part.first`` to ``part.last``.
    :param line: tells how many connections are of use, and is told what arrives.
    :param piece: bytes of a segment.
    """

    def __init__(
        self,
        body: IBody,
        part: ContentRange,
        open_range: OpenRange,
        line: Line,
        clock: IReactorTime,
        piece: int = PIECE,
    ) -> None:
        self.descriptor = body.descriptor
        self._body = body
        self._part = part
        self._open_range = open_range
        self._line = line
        self._clock = clock
        self._piece = piece

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """:raises Unreachable: also when a segment is refused: the caller may fetch the rest."""

        def segment(first: int, last: int) -> Segment:
            return Segment(first, last, self._open_range, self._line, self._clock)

        delivery = _SegmentedDelivery(self._part, segment, self._line, self._piece)
        return Deferred.fromCoroutine(delivery.run(self._body, consumer))

    def discard(self) -> None:
        self._body.discard()


class _SegmentedDelivery:
    """One delivery: which segments are fetched ahead, and the order in which they are delivered.

    :param make_segment: makes a segment, whose fetch has not begun.
    """

    def __init__(
        self, part: ContentRange, make_segment: Callable[[int, int], Segment], line: Line, piece: int
    ) -> None:
        self._first = part.first
        self._last = part.last
        self._make_segment = make_segment
        self._line = line
        self._piece = piece
        self._ahead: deque[Segment] = deque()
        self._is_leading = True
        self._serves_ranges = False
        self._refusals = 0
        self._distance = piece
        self._next = part.first + piece

    async def run(self, body: IBody, consumer: IConsumer) -> None:
        to = SequentialConsumer(consumer)
        try:
            self._fetch_ahead()
            await self._deliver_leading_body(body, to)
            while self._ahead:
                await self._ahead[0].deliver(to)
                self._ahead.popleft()
                self._fetch_ahead()
        except RegistryError as error:
            if self._is_leading or isinstance(error, Unreachable):
                raise
            raise Unreachable(f"a segment was refused: {error}") from error
        finally:
            for segment in self._ahead:
                segment.cancel()
            to.finish()

    async def _deliver_leading_body(self, body: IBody, to: SequentialConsumer) -> None:
        """Deliver the leading body up to the first segment that arrives, or to its end."""
        leading = _LeadingConsumer(to, self._first, self._find_stop)
        self._line.record_open()
        try:
            await leading.forward(body)
        except (CancelledError, Unreachable):
            if not leading.satisfied:
                raise
        finally:
            self._line.record_close()
        self._is_leading = False
        if leading.satisfied:
            self._fetch_ahead()
        else:
            self._drop_all()

    @property
    def _max_connections(self) -> int:
        most = self._line.segments()
        return max(1, min(most, 2 if not self._serves_ranges else most) - self._refusals)

    def _find_stop(self, position: int, end: int) -> int | None:
        """Return the offset at which the leading body, received up to ``end``, may stop, or None."""
        self._line.record_bytes(end - position)
        if not self._ahead:
            self._next = max(self._next, end + self._distance)
            self._fetch_ahead()
            return None
        if end < self._ahead[0].first:
            return None
        if self._ahead[0].has_begun:
            return self._ahead[0].first
        self._drop_all()
        self._distance *= 2
        self._next = end + self._distance
        self._fetch_ahead()
        return None

    def _drop_all(self) -> None:
        while self._ahead:
            self._ahead.popleft().cancel()

    def _fetch_ahead(self) -> None:
        """Start fetches as far as connections allow; the last connection fetches all the rest."""
        while self._next <= self._last and len(self._ahead) + self._is_leading < self._max_connections:
            last = self._last if self._max_connections == 1 else min(self._next + self._piece - 1, self._last)
            segment = self._make_segment(self._next, last)
            self._next = last + 1
            self._ahead.append(segment)
            segment.begin(self._update)

    def _update(self, segment: Segment) -> None:
        if segment.error is not None:
            self._refusals += 1
            if not self._serves_ranges:
                self._ahead.remove(segment)
        elif not self._serves_ranges:
            self._serves_ranges = True
            self._fetch_ahead()


class _LeadingConsumer(EarlyStopConsumer):
    """Passes the leading body on up to a stop.

    :param find_stop: given the offsets of a piece's beginning and end, returns the one at which to stop, or
        None.
    """

    def __init__(
        self, consumer: IConsumer, position: int, find_stop: Callable[[int, int], int | None]
    ) -> None:
        super().__init__(consumer)
        self._position = position
        self._find_stop = find_stop

    def forward_piece(self, data: bytes) -> None:
        stop = self._find_stop(self._position, self._position + len(data))
        self.satisfied = stop is not None
        self.consumer.write(data if stop is None else data[: stop - self._position])
        self._position += len(data)
