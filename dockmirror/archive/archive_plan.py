"""An archive before a byte of it is read: how long it is, and what lies where in it.

An archive is never built anywhere.  Whoever sends it, whole or a part of it, reads the plan's pieces.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from ..oci.digest import Digest


@frozen
class ContentSlice:
    """A stretch of the bytes of a content; all of them where that is not said otherwise."""

    digest: Digest
    size: int
    offset: int = 0


Piece = bytes | ContentSlice
"""Bytes that are known already, or such as lie in a file."""


@frozen
class ArchivePlan:
    """The pieces of an archive, in their order."""

    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Of the whole archive, in bytes."""
        return sum(map(length, self.pieces))

    def part(self, start: int, stop: int) -> Iterator[Piece]:
        """What lies from ``start`` up to before ``stop``."""
        position = 0
        for piece in self.pieces:
            first, last = max(start - position, 0), min(stop - position, length(piece))
            if first < last:
                yield _cut(piece, first, last)
            position += length(piece)


def length(piece: Piece) -> int:
    """In bytes."""
    return len(piece) if isinstance(piece, bytes) else piece.size


def _cut(piece: Piece, first: int, last: int) -> Piece:
    if isinstance(piece, bytes):
        return piece[first:last]
    return ContentSlice(piece.digest, last - first, piece.offset + first)
