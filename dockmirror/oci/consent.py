"""Consent: the proof that an upstream gives a content to a client.

Consent is bytes.  An upstream consents to (repository, digest) only when it, or the server that it redirects
to, gives that content, asked as the client would ask:

1. A HEAD is consent only where the registry itself answers 200 with that digest and that length, or 304 to
   the digest that is held.  A redirect, a 203 and a web page are not.
2. Where HEAD does not answer so, a new GET is sent to the registry, and followed to its end; the HEAD's own
   ``Location`` is never used, since addresses are signed for one method.  A manifest proves itself by bytes
   that have the digest.  A blob proves itself by ``SAMPLE`` bytes at a random offset, which equal the held
   ones, and by the held size as the total: one byte and a total can be forged.  The offset is in the first
   MiB; if the blob is held in blocks, it is in any of them.
3. A blob that is fetched is consent when all of its bytes have proven right.  Until then, an answer that
   states the blob's size lets the same credentials join its download; a page in its place does not.

A redirect alone is never consent: some registries redirect every request, without looking.  A blob that
another registry or a peer gives is no consent either.  Consent to credentials is remembered for a repository
as a grant, consent to a request without any as public; nothing else makes either.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

from attrs import Factory, field, frozen

from .digest import Descriptor, Digest
from .header_fields import ContentRange

SAMPLE = 64
"""Bytes of a blob that are compared."""
SAMPLED = 1024 * 1024
"""Bytes at a blob's beginning of which the sample is a part."""


def sampled_part(size: int) -> ContentRange:
    """Return the part of a blob to compare, at random; the blob is not empty."""
    length = min(SAMPLE, size)
    first = secrets.randbelow(min(size, SAMPLED) - length + 1)
    return ContentRange(first, first + length - 1, size)


@frozen
class HeldBlob:
    """A blob that is held, or on its way in, and may be given to somebody if the upstream consents.

    :ivar size: bytes; None where that is not known.
    :ivar read: reads a part of it, waiting for the bytes if need be; None where that cannot be done.
    :ivar part: the part to compare; None where there is none.
    """

    size: int | None
    read: Callable[[ContentRange], Awaitable[bytes | None]] = field(eq=False, repr=False)
    part: ContentRange | None = field(
        default=Factory(lambda self: sampled_part(self.size) if self.size else None, takes_self=True),
        eq=False,
    )

    async def matches(self, part: ContentRange | None, data: bytes) -> bool:
        """Return whether an upstream gave the same bytes of a blob of the same size."""
        return part is not None and part == self.part and data == await self.read(part)


def head_consents(reported: Descriptor, digest: Digest | None, size: int | None = None) -> bool:
    """Return whether the headers of a registry's own 200 to a HEAD are consent.

    :param digest: the requested content; None for a tag, which may name any.
    :param size: the length of the content, where it is known.
    """
    complete = reported.digest is not None and reported.size is not None
    return complete and digest in (None, reported.digest) and size in (None, reported.size)
