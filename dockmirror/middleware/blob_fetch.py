"""Blobs fetched reliably and fast: verified, resumed when they break off, over several connections."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..body.in_memory import BytesBody
from ..body.line import Line
from ..body.segmented import PIECE, SegmentedBody
from ..body.wrappers import ResumingBody, Slice, VerifiedBody
from ..concurrency.backoff import is_outage
from ..concurrency.coroutines import TTLCache
from ..interfaces import Answer, IBody, IRegistry
from ..oci.digest import Descriptor
from ..oci.errors import RangeInvalid, RegistryError, Unavailable
from ..oci.header_fields import ContentRange, Range
from ..oci.request import Blob, RegistryRequest, Target

SINGLE_CONNECTION_TTL = 600.0
"""Seconds within which a blob that is fetched from its start again comes over one connection.

A blob that was right is stored; this one may have been wrong because of its segments.
"""
_MOST = 10_000
_OpenRange = Callable[[Range], Coroutine[Any, Any, Answer]] | None


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
        self._open_range: _OpenRange = answer.open_range
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
