"""Archives as they are given: compressed, in parts, from a pipe, or as a directory; all calls block."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import copyfileobj
from typing import BinaryIO, cast

import zstandard

from .archive_files import ArchiveRefused
from .checksums import SIGNATURE_SUFFIX, SUFFIX

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_PIECE = 1024 * 1024
_NUMBER = re.compile(r"\.[0-9]{3,}")
OpenTemporary = Callable[[], BinaryIO]
"""Opens an empty file that is deleted when it is closed."""


def group_parts(paths: Sequence[Path]) -> list[list[Path]]:
    """Return the paths of each archive: those of its parts in order, or its only one.

    Files with a number at the end are parts if the first one is named, too: else the number may be a date.
    Checksums and signatures, which ``archive.tar.*`` names too, are left out.

    :raises ArchiveRefused: when a part is missing, or no archive is left.
    """
    groups: dict[Path, list[Path]] = {}
    archives = dict.fromkeys(each for each in paths if not each.name.endswith((SUFFIX, SIGNATURE_SUFFIX)))
    if not archives:
        raise ArchiveRefused("these are checksums; name the archives, too")
    for path in archives:
        first = _part(path, 1) if _part_number(path) else path
        groups.setdefault(first if first in archives else path, []).append(path)
    for parts in groups.values():
        parts.sort(key=_part_number)
        for number, part in enumerate(parts, 1):
            if len(parts) > 1 and _part_number(part) != number:
                raise ArchiveRefused(f"{_part(part, number)} is missing")
    return list(groups.values())


def find_parts(path: Path) -> list[Path]:
    """Return all parts of the archive to which a part belongs; of an archive in one file, that."""
    if not _part_number(path) or not _part(path, 1).is_file():
        return [path]
    return [each for each in path.parent.iterdir() if each.stem == path.stem and _part_number(each)]


def part_advice(paths: Sequence[Path]) -> str:
    """Return advice, if a file that is refused by itself may be one of several parts."""
    if len(paths) != 1 or not _part_number(paths[0]):
        return ""
    return f"; if it is a part of an archive, name all parts, from {_part(paths[0], 1).name} on"


def _part_number(path: Path) -> int:
    """Return the number at the end of a file's name, 0 if there is none."""
    return int(path.suffix[1:]) if _NUMBER.fullmatch(path.suffix) and not path.is_dir() else 0


def _part(path: Path, number: int) -> Path:
    return path.with_suffix(f".{number:03}")


def open_seekable(files: Sequence[BinaryIO], open_temporary: OpenTemporary) -> BinaryIO:
    """Return the archive in these files as one that is uncompressed and seekable.

    :param open_temporary: opens a file for an archive that has to be decompressed, or comes from a pipe.
    :raises ArchiveRefused: when its compression is corrupt.
    """
    file = files[0] if len(files) == 1 else cast(BinaryIO, io.BufferedReader(_JoinedFiles(files)))
    if not file.seekable():
        file = _copy(file, open_temporary)
    file.seek(0)
    beginning = file.read(4)
    file.seek(0)
    try:
        if beginning.startswith(_GZIP):
            with gzip.open(file) as decompressed:
                return _copy(cast(BinaryIO, decompressed), open_temporary)
        if beginning == _ZSTD:
            reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            return _copy(cast(BinaryIO, reader), open_temporary)
    except (gzip.BadGzipFile, zlib.error, EOFError, zstandard.ZstdError) as error:
        raise ArchiveRefused(f"it cannot be decompressed: {error}") from None
    return file


def _copy(file: BinaryIO, open_temporary: OpenTemporary) -> BinaryIO:
    copy = open_temporary()
    copyfileobj(file, copy, _PIECE)
    copy.seek(0)
    return copy


class _JoinedFiles(io.RawIOBase):
    """Several files as if they were one."""

    def __init__(self, files: Sequence[BinaryIO]) -> None:
        self._files = files
        self._ends: list[int] = []
        for file in files:
            self._ends.append((self._ends[-1] if self._ends else 0) + file.seek(0, io.SEEK_END))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._ends[-1]}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override, unused-ignore]
        for number, end in enumerate(self._ends):
            if self._position < end:
                file = self._files[number]
                file.seek(self._position - (self._ends[number - 1] if number else 0))
                data = file.read(min(len(buffer), end - self._position))
                buffer[: len(data)] = data
                self._position += len(data)
                return len(data)
        return 0
