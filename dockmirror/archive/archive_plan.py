"""An archive of images as a plan: its length and the place of everything in it, before a byte is read.

An archive is never built on disk.  The plan is computed from sizes and digests; a sender reads its pieces.

Sources: POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar's manual for names and sizes that do not fit.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import BinaryIO

from attrs import frozen

from ..oci.digest import Digest

_BLOCK = 512
_END = bytes(2 * _BLOCK)
_READ_SIZE = 1024 * 1024
OpenContent = Callable[[Digest], BinaryIO]
"""Opens the file of a content."""


@frozen
class ContentSlice:
    """A range of a content's bytes; all of them unless an offset is given."""

    digest: Digest
    size: int
    offset: int = 0


Piece = bytes | ContentSlice
"""Known bytes, or a range of a stored content."""


@frozen
class ArchivePlan:
    """The pieces of an archive, in order."""

    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """The length of the archive in bytes."""
        return sum(map(piece_size, self.pieces))

    def part(self, start: int, stop: int) -> Iterator[Piece]:
        """Yield the pieces from ``start`` up to, but not including, ``stop``."""
        position = 0
        for piece in self.pieces:
            first, last = max(start - position, 0), min(stop - position, piece_size(piece))
            if first < last:
                yield _cut(piece, first, last)
            position += piece_size(piece)


def piece_size(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece.size


def _cut(piece: Piece, first: int, last: int) -> Piece:
    if isinstance(piece, bytes):
        return piece[first:last]
    return ContentSlice(piece.digest, last - first, piece.offset + first)


def plan_tar(files: Mapping[str, Piece]) -> ArchivePlan:
    """Plan a tar file of these files and their directories, sorted by path, without times and owners.

    The same files always give the same bytes.
    """
    entries: dict[str, Piece | None] = dict(files)
    for path in files:
        entries.update((f"{parent}/", None) for parent in PurePosixPath(path).parents if parent.name)
    pieces = (piece for path in sorted(entries) for piece in _entry(path, entries[path]))
    return ArchivePlan((*pieces, _END))


def _entry(path: str, content: Piece | None) -> Iterator[Piece]:
    info = tarfile.TarInfo(path)
    if content is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        yield info.tobuf(tarfile.GNU_FORMAT)
        return
    info.size = piece_size(content)
    yield info.tobuf(tarfile.GNU_FORMAT)
    if info.size:
        yield content
        yield bytes(-info.size % _BLOCK)


class ArchiveContentError(Exception):
    """A stored file is not the content of its digest: the archive cannot be completed."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(f"the stored file of {digest} is corrupt: its content does not match the digest")
        self.digest = digest


def read_archive(
    plan: ArchivePlan, open_content: OpenContent, start: int = 0, stop: int | None = None
) -> Iterator[bytes]:
    """Yield the bytes from ``start`` up to, but not including, ``stop``, and verify complete contents.

    :raises ArchiveContentError: at the end of a content that is corrupt or truncated.
    """
    complete = {piece for piece in plan.pieces if isinstance(piece, ContentSlice)}
    for piece in plan.part(start, plan.size if stop is None else stop):
        if isinstance(piece, bytes):
            yield piece
        else:
            yield from _content(piece, open_content, piece in complete)


def _content(content: ContentSlice, open_content: OpenContent, is_complete: bool) -> Iterator[bytes]:
    verifier, left = content.digest.verifier(), content.size
    with open_content(content.digest) as file:
        file.seek(content.offset)
        while left:
            data = file.read(min(left, _READ_SIZE))
            if not data:
                raise ArchiveContentError(content.digest)
            verifier.update(data)
            left -= len(data)
            yield data
    if is_complete and not verifier.matches():
        raise ArchiveContentError(content.digest)
