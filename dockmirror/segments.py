"""Large blobs that are fetched by several connections at once."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from .content.part import Part
from .content.segmented import PIECE, Segmented
from .interfaces import Answer, IContent, IRegistry
from .notes import Notes
from .oci.errors import Unavailable
from .oci.ranges import ContentRange, Range
from .oci.request import Blob, Request
from .oci.token import TokenRequest

LEAST = 2 * PIECE
"""Bytes; less is fetched by one connection."""
AGAIN = 600.0
"""Seconds within which a blob that is asked for from its start again comes by one connection.

What was fetched well is kept; this one may have come wrong because of its parts.
"""
_MOST = 10_000


@implementer(IRegistry)
class InSegments:
    """A registry of which blobs, and the rests of blobs, come by up to ``segments`` connections each.

    For whoever takes a blob as fast as it comes: parts of it wait in memory until it is their turn.
    """

    def __init__(self, registry: IRegistry, segments: int, clock: IReactorTime) -> None:
        self._registry = registry
        self._segments = segments
        self._clock = clock
        self._begun: Notes[Blob, bool] = Notes(clock, _MOST)

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._registry.token(request)

    async def fetch(self, request: Request) -> Answer:
        """See ``IRegistry``."""
        answer = await self._registry.fetch(request)
        part = _to_the_end(request, answer)
        if part is None or part.length < LEAST or not self._may_be_cut(request.target, part):
            return answer

        async def open_range(first: int, last: int) -> IContent:
            asked = evolve(request, range=Range.since(first, last), if_none_match=None)
            return _just(await self._registry.fetch(asked), ContentRange(first, last, part.size))

        content = Segmented(answer.content, part, open_range, self._segments, self._clock)
        return evolve(answer, content=content)

    def _may_be_cut(self, target: object, part: ContentRange) -> bool:
        if part.first or not isinstance(target, Blob):
            return True
        if self._begun.get(target):
            return False
        self._begun.put(target, True, AGAIN)
        return True


def _to_the_end(request: Request, answer: Answer) -> ContentRange | None:
    """The part of a blob that is answered, where it goes to the end; None where the upstream cuts nothing."""
    if request.head or not isinstance(request.target, Blob):
        return None
    if answer.status == 200:
        size = answer.content.descriptor.size
        return ContentRange(0, size - 1, size) if size else None
    part = answer.content_range
    ends = part is not None and part.size == part.last + 1
    return part if ends and not _was_cut_out(answer) else None


def _just(answer: Answer, part: ContentRange) -> IContent:
    """The part that was asked for.

    :raises Unavailable: when it is another, or would have to be cut out of the whole.
    """
    told = answer.content_range
    is_part = told is not None and evolve(told, size=part.size) == part and told.size in (None, part.size)
    if is_part and not _was_cut_out(answer):
        return Part(answer.content, 0, part.length)
    answer.content.discard()
    raise Unavailable("the upstream does not give the part that was asked for")


def _was_cut_out(answer: Answer) -> bool:
    """Whether the upstream sends the whole all the same."""
    return answer.upstream_status == 200
