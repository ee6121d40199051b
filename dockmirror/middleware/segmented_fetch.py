"""Large blobs that are fetched by several connections at once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..body.segmented import PIECE, SegmentedBody
from ..body.slice import Slice
from ..concurrency.circuit_breaker import is_outage
from ..concurrency.ttl_cache import TTLCache
from ..interfaces import Answer, IBody, IRegistry
from ..oci.errors import RegistryError, Unavailable
from ..oci.ranges import ContentRange, Range
from ..oci.request import Blob, RegistryRequest, Target
from ..oci.token import TokenRequest

AGAIN = 600.0
"""Seconds within which a blob that is asked for from its start again comes by one connection.

What was fetched well is kept; this one may have come wrong because of its parts.
"""
_MOST = 10_000
_AskedThere = Callable[[Range], Coroutine[Any, Any, Answer]] | None


@implementer(IRegistry)
class SegmentedFetch:
    """A registry of which blobs, and the rests of blobs, come by up to ``segments`` connections each.

    For whoever takes a blob as fast as it comes: parts of it wait in memory until it is their turn.
    What is shorter than two parts comes by one connection.

    :param piece: bytes of a part.
    """

    def __init__(self, registry: IRegistry, segments: int, clock: IReactorTime, piece: int = PIECE) -> None:
        self._registry = registry
        self._segments = segments
        self._clock = clock
        self._piece = piece
        self._begun: TTLCache[Blob, bool] = TTLCache(clock, _MOST)

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._registry.token(request)

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``."""
        answer = await self._registry.fetch(request)
        part = _to_the_end(request, answer)
        if part is None or part.length < 2 * self._piece or not self._may_be_cut(request.target, part):
            return answer

        parts = _SegmentSource(self._registry, evolve(request, if_none_match=None), part.size, answer)
        content = SegmentedBody(answer.body, part, parts.open, self._segments, self._clock, self._piece)
        return evolve(answer, body=content)

    def _may_be_cut(self, target: Target, part: ContentRange) -> bool:
        if part.first or not isinstance(target, Blob):
            return True
        if self._begun.get(target):
            return False
        self._begun.put(target, True, AGAIN)
        return True


class _SegmentSource:
    """Parts of one blob: asked for where it was given, and of the registry when that address has ended.

    A part that comes from another address of the upstream is not taken: if the blob proves wrong, it must be
    known which address gave it.

    :param answer: the beginning.
    """

    def __init__(
        self, registry: IRegistry, request: RegistryRequest, size: int | None, answer: Answer
    ) -> None:
        self._registry = registry
        self._request = request
        self._size = size
        self._there: _AskedThere = answer.open_range
        self._reject = answer.reject

    async def open(self, first: int, last: int) -> IBody:
        """See ``OpenRange``."""
        wanted, part = Range.starting_at(first, last), ContentRange(first, last, self._size)
        there = self._there
        if there is not None:
            try:
                return _just(await there(wanted), part)
            except RegistryError as error:
                if is_outage(error):
                    raise
                if self._there is there:
                    self._there = None
        answer = await self._registry.fetch(evolve(self._request, range=wanted))
        if answer.reject != self._reject:
            answer.body.discard()
            raise Unavailable("another address of the upstream gives the part")
        self._there = answer.open_range
        return _just(answer, part)


def _to_the_end(request: RegistryRequest, answer: Answer) -> ContentRange | None:
    """The part of a blob that is answered, where it goes to the end; None where the upstream cuts nothing."""
    if request.head or not isinstance(request.target, Blob):
        return None
    if answer.status == 200:
        size = answer.body.descriptor.size
        return ContentRange(0, size - 1, size) if size else None
    part = answer.content_range
    ends = part is not None and part.size == part.last + 1
    return part if ends and not _was_cut_out(answer) else None


def _just(answer: Answer, part: ContentRange) -> IBody:
    """The part that was asked for.

    :raises Unavailable: when it is another, or would have to be cut out of the whole.
    """
    told = answer.content_range
    is_part = told is not None and evolve(told, size=part.size) == part and told.size in (None, part.size)
    if is_part and not _was_cut_out(answer):
        return Slice(answer.body, 0, part.length)
    answer.body.discard()
    raise Unavailable("the upstream does not give the part that was asked for")


def _was_cut_out(answer: Answer) -> bool:
    """Whether the upstream sends the whole all the same."""
    return answer.upstream_status == 200
