"""What an upstream offers of a blob from an offset on."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from ...content.part import Part
from ...content.verified import Corrupt
from ...interfaces import Answer, IContent
from ...oci.digest import Digest
from ...oci.errors import RangeInvalid, RegistryError, Unavailable


class Useless(Exception):
    """What was fetched before cannot be gone on with; the blob is to be fetched from its start.

    :ivar error: what those are told who have been given some of it.
    """

    def __init__(self, error: RegistryError) -> None:
        super().__init__(str(error))
        self.error = error


class Doubtful(Useless):
    """All was fetched, in parts, and is wrong; nobody is to blame before it was fetched in one piece."""


class Rejected(Corrupt):
    """The bytes are not the blob, and the address that gave them was told so."""


@frozen
class Offer:
    """The bytes from the offset on, and the size of the whole; None where it is not told.

    :ivar reject: see ``Answer``.
    """

    content: IContent
    size: int | None
    reject: Callable[[Digest], None] | None = None


def offered(answer: Answer, offset: int) -> Offer:
    """What the answer to a request from the offset on brings.

    :raises Useless: when it is another part.
    :raises Unavailable: when it is none at all.
    """
    part = answer.content_range
    if answer.status == 200:
        size = answer.content.descriptor.size
        return Offer(Part(answer.content, offset) if offset else answer.content, size, answer.reject)
    if part is not None and part.first == offset and part.size in (None, part.last + 1):
        return Offer(answer.content, part.size, answer.reject)
    answer.content.discard()
    if part is None:
        raise Unavailable("the upstream's answer is no blob", upstream_status=answer.upstream_status)
    raise Useless(Unavailable("the upstream does not go on where it broke off", upstream_status=206))


def refuses_the_rest(error: RegistryError) -> bool:
    """Whether a request for the rest was refused because of its offset, or answered with another part."""
    return isinstance(error, RangeInvalid) or error.upstream_status == 206
