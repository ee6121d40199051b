"""Blobs that arrive complete and verified, or are cut off."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..body.in_memory import BytesBody
from ..body.verified import VerifiedBody
from ..body.wrappers import ResumingBody, Slice
from ..interfaces import Answer, IBody, IRegistry
from ..oci.descriptor import Descriptor
from ..oci.errors import RangeInvalid, Unavailable
from ..oci.ranges import Range
from ..oci.request import Blob, RegistryRequest


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
