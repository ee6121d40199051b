"""Blobs fetched reliably and fast: verified, resumed, over as many connections as make it faster."""

from __future__ import annotations

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..body.bodies import BytesBody, ResumingBody, Slice, VerifiedBody
from ..body.segmented import PIECE, Line, SegmentedBody
from ..concurrency.backoff import is_outage
from ..concurrency.coroutines import TTLCache
from ..interfaces import Answer, IBody, IRegistry, OpenRange
from ..oci.digest import Descriptor
from ..oci.errors import RangeInvalid, RegistryError, Unavailable
from ..oci.header_fields import ContentRange, Range
from ..oci.request import Blob, RegistryRequest, Target

WINDOW = 0.5
"""Seconds over which rates are compared; after each change as many pass unmeasured."""
MIN_BYTES = 1024 * 1024
"""Bytes without which a window says nothing."""
MIN_CHANGE = 1.3
"""Ratio of the open connections of two windows from which on they are compared."""
MIN_REWARD = 0.3
"""Share of its own rate that an additional connection must add."""
HOLD = 300.0
"""Seconds until the number is tried again after it was found to be too high."""
SINGLE_CONNECTION_TTL = 600.0
"""Seconds within which a blob that is fetched from its start again comes over one connection.

A blob that was right is stored; this one may have been wrong because of its segments.
"""
_MOST = 10_000


class FixedSegments:
    """A number of connections that the operator has set."""

    def __init__(self, number: int) -> None:
        self.number = number

    def segments(self) -> int:
        return self.number

    def record_open(self) -> None:
        pass

    def record_close(self) -> None:
        pass

    def record_bytes(self, count: int) -> None:
        pass


@frozen
class _Rate:
    """The mean number of open connections in a window, and the bytes per second of all of them."""

    connections: float
    bytes: float


class AdaptiveSegments:
    """Doubles the number of connections while additional ones bring more, and halves it when they do not.

    More connections help where each of them is slow (a long way, a limit for each connection), and not where
    one connection fills the line.

    :param connections: the upstream's limit, of which all blobs together use at most half.
    :param most: the most connections for one blob.
    """

    def __init__(self, clock: IReactorTime, connections: int, most: int) -> None:
        self._clock = clock
        self._most = most
        self._limit = connections // 2
        self._segments = 1
        self._open = 0
        self._before: _Rate | None = None
        self._held_until = 0.0
        self._begin_window(0.0)

    def segments(self) -> int:
        return max(1, min(self._segments, self._limit - self._open + 1))

    def record_open(self) -> None:
        self._account()
        self._open += 1

    def record_close(self) -> None:
        self._account()
        self._open -= 1

    def record_bytes(self, count: int) -> None:
        self._account()
        if self._last < self._begins:
            return
        self._bytes += count
        busy = self._last - self._begins - self._idle
        if busy >= WINDOW and self._bytes >= MIN_BYTES:
            self._decide(_Rate(self._connection_seconds / busy, self._bytes / busy))

    def _begin_window(self, delay: float) -> None:
        self._last = self._clock.seconds()
        self._begins = self._last + delay
        self._connection_seconds = self._idle = 0.0
        self._bytes = 0

    def _account(self) -> None:
        now = self._clock.seconds()
        elapsed = max(0.0, now - max(self._last, self._begins))
        self._connection_seconds += elapsed * self._open
        self._idle += 0.0 if self._open else elapsed
        self._last = now

    def _decide(self, rate: _Rate) -> None:
        before, now = self._before, self._last
        if before is None:
            if now >= self._held_until:
                self._before = rate
                self._change(2 * self._segments)
            else:
                self._begin_window(0.0)
        elif not 1 / MIN_CHANGE < rate.connections / before.connections < MIN_CHANGE:
            if _is_rewarded(before, rate):
                self._before = rate
                self._change(2 * self._segments)
            else:
                self._before, self._held_until = None, now + HOLD
                self._change(self._segments // 2)
        else:
            self._begin_window(0.0)

    def _change(self, segments: int) -> None:
        self._segments = max(1, min(segments, self._most))
        self._begin_window(WINDOW)


def _is_rewarded(before: _Rate, after: _Rate) -> bool:
    """Return whether the additional connections added enough of what each had before."""
    added = after.connections / before.connections - 1
    return (after.bytes / before.bytes - 1) / added >= MIN_REWARD


@implementer(IRegistry)
class ResumingRegistry:
    """Continues a blob that breaks off by ``Range``, and verifies complete blobs.

    The rest is fetched as the beginning was, with the same path and credentials.
    """

    def __init__(self, registry: IRegistry, clock: IReactorTime) -> None:
        self._registry = registry
        self._clock = clock

    async def fetch(self, request: RegistryRequest) -> Answer:
        answer = await self._registry.fetch(request)
        if request.head or not isinstance(request.target, Blob):
            return answer
        part = answer.content_range
        if answer.status == 200:
            resumed = self._resumed(request, answer.body, 0, None)
            return evolve(answer, body=VerifiedBody(resumed, request.target.digest))
        if part is None:
            return answer
        body = Slice(answer.body, 0, part.length)
        return evolve(answer, body=self._resumed(request, body, part.first, part.last))

    def _resumed(self, request: RegistryRequest, body: IBody, first: int, last: int | None) -> ResumingBody:
        async def reopen(count: int) -> IBody:
            offset = first + count
            wanted = None if (offset, last) == (0, None) else Range.starting_at(offset, last)
            try:
                answer = await self._registry.fetch(evolve(request, range=wanted, if_none_match=None))
            except RangeInvalid as error:
                if error.content_size != offset:
                    raise
                return BytesBody(b"", Descriptor())  # the blob broke off after its last byte
            return _rest(answer, offset, last)

        return ResumingBody(body, reopen, self._clock)


def _rest(answer: Answer, offset: int, last: int | None) -> IBody:
    """Return the content from the offset on, out of an answer with a range or with all of it.

    :raises Unavailable: when the answer does not continue at the offset.
    """
    length = None if last is None else last - offset + 1
    if answer.status == 200:
        return Slice(answer.body, offset, length)
    if answer.content_range is None or answer.content_range.first != offset:
        answer.body.discard()
        raise Unavailable("the upstream did not continue the blob where it broke off")
    return Slice(answer.body, 0, length)


@implementer(IRegistry)
class SegmentedFetch:
    """Fetches blobs, and rests of blobs, over as many connections each as the line says.

    Segments wait in memory for their turn, so the consumer must take a blob as fast as it arrives.
    A blob shorter than two segments comes over one connection.

    :param piece: bytes of a segment.
    """

    def __init__(self, registry: IRegistry, line: Line, clock: IReactorTime, piece: int = PIECE) -> None:
        self._registry = registry
        self._line = line
        self._clock = clock
        self._piece = piece
        self._begun: TTLCache[Blob, bool] = TTLCache(clock, _MOST)

    async def fetch(self, request: RegistryRequest) -> Answer:
        answer = await self._registry.fetch(request)
        part = _rest_of_blob(request, answer)
        if part is None or part.length < 2 * self._piece or not self._may_be_cut(request.target, part):
            return answer

        source = _SegmentSource(self._registry, evolve(request, if_none_match=None), part.size, answer)
        body = SegmentedBody(answer.body, part, source.open, self._line, self._clock, self._piece)
        return evolve(answer, body=body)

    def _may_be_cut(self, target: Target, part: ContentRange) -> bool:
        if part.first or not isinstance(target, Blob):
            return True
        if self._begun.get(target):
            return False
        self._begun.put(target, True, SINGLE_CONNECTION_TTL)
        return True


class _SegmentSource:
    """Opens segments of one blob at the address it came from, or by the registry once that has expired.

    A segment from another address of the upstream is refused: if the blob proves wrong, it must be known
    which address sent it.

    :param answer: the answer with the blob's beginning.
    """

    def __init__(
        self, registry: IRegistry, request: RegistryRequest, size: int | None, answer: Answer
    ) -> None:
        self._registry = registry
        self._request = request
        self._size = size
        self._open_range: OpenRange | None = answer.open_range
        self._reject = answer.reject

    async def open(self, first: int, last: int) -> IBody:
        wanted, part = Range.starting_at(first, last), ContentRange(first, last, self._size)
        open_range = self._open_range
        if open_range is not None:
            try:
                return _body_of_range(await open_range(wanted), part)
            except RegistryError as error:
                if is_outage(error):
                    raise
                if self._open_range is open_range:
                    self._open_range = None
        answer = await self._registry.fetch(evolve(self._request, range=wanted))
        if answer.reject != self._reject:
            answer.body.discard()
            raise Unavailable("another address of the upstream sent the segment")
        self._open_range = answer.open_range
        return _body_of_range(answer, part)


def _rest_of_blob(request: RegistryRequest, answer: Answer) -> ContentRange | None:
    """Return the range of a blob in the answer, if it reaches the end and ranges are served; or None."""
    if request.head or not isinstance(request.target, Blob):
        return None
    if answer.status == 200:
        size = answer.body.descriptor.size
        return ContentRange(0, size - 1, size) if size else None
    part = answer.content_range
    ends = part is not None and part.size == part.last + 1
    return part if ends and not _was_cut_out(answer) else None


def _body_of_range(answer: Answer, part: ContentRange) -> IBody:
    """Return the body of just that range.

    :raises Unavailable: when the answer has another range, or all of the blob.
    """
    received = answer.content_range
    is_part = (
        received is not None
        and evolve(received, size=part.size) == part
        and received.size in (None, part.size)
    )
    if is_part and not _was_cut_out(answer):
        return Slice(answer.body, 0, part.length)
    answer.body.discard()
    raise Unavailable("the upstream did not send the range that was asked for")


def _was_cut_out(answer: Answer) -> bool:
    """Return whether the body is cut out of a complete one, which the upstream has sent anyway."""
    return answer.upstream_status == 200
