"""The bytes of an archive, or of a part of it; calls that block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from ..oci.digest import Digest
from .archive_plan import ArchivePlan, ContentSlice

_PIECE = 1024 * 1024

OpenContent = Callable[[Digest], BinaryIO]
"""Opens the file of a content."""


class ArchiveContentError(Exception):
    """What lies there is not the content of its digest: the archive cannot be completed."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(f"{digest}: what is held is not the content of that digest")
        self.digest = digest


def read(
    plan: ArchivePlan, open_content: OpenContent, start: int = 0, stop: int | None = None
) -> Iterator[bytes]:
    """The bytes from ``start`` up to before ``stop``, in pieces; contents are verified that are read whole.

    :raises ArchiveContentError: at the end of a content that is wrong, or where it ends too soon.
    """
    whole = {piece for piece in plan.pieces if isinstance(piece, ContentSlice)}
    for piece in plan.part(start, plan.size if stop is None else stop):
        if isinstance(piece, bytes):
            yield piece
        else:
            yield from _content(piece, open_content, piece in whole)


def _content(segment: ContentSlice, open_content: OpenContent, whole: bool) -> Iterator[bytes]:
    verifier, left = segment.digest.verifier(), segment.size
    with open_content(segment.digest) as file:
        file.seek(segment.offset)
        while left:
            data = file.read(min(left, _PIECE))
            if not data:
                raise ArchiveContentError(segment.digest)
            verifier.update(data)
            left -= len(data)
            yield data
    if whole and not verifier.matches():
        raise ArchiveContentError(segment.digest)
