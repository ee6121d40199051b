"""A tar file as a plan: the same entries are always the same bytes.

Source: POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar's manual for names and sizes that do not fit.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from .archive_plan import ArchivePlan, Piece, length

_BLOCK = 512
_END = bytes(2 * _BLOCK)


def tar_of(files: Mapping[str, Piece]) -> ArchivePlan:
    """The files by their paths, sorted, with the directories that they lie in; of no time and of nobody."""
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
    info.size = length(content)
    yield info.tobuf(tarfile.GNU_FORMAT)
    if info.size:
        yield content
        yield bytes(-info.size % _BLOCK)
