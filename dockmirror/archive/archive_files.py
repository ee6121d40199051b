"""The files of an archive that somebody brings, who may mean to do harm; calls that block."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from posixpath import dirname, join, normpath
from typing import BinaryIO, Protocol, cast

from attrs import field, frozen

DOCUMENT = 4 * 1024 * 1024
"""How large a document may be that is read whole."""
DOCUMENTS = 32 * 1024 * 1024
"""How large all documents of an archive may be together."""
_HEADER = 1024 * 1024
_ENTRIES = 100_000
_PIECE = 1024 * 1024


class ArchiveRefused(Exception):
    """An archive of which nothing is taken: one sentence that says why."""


class ArchiveFile(Protocol):
    """A file in an archive."""

    @property
    def size(self) -> int:
        """In bytes."""

    def pieces(self) -> Iterator[bytes]:
        """Its bytes; fewer than its size where the archive ends too soon."""


@frozen
class StoredFileEntry:
    """One that lies in the archive."""

    file: BinaryIO = field(repr=False)
    offset: int
    size: int

    def pieces(self) -> Iterator[bytes]:
        """See ``ArchiveFile``."""
        offset, end = self.offset, self.offset + self.size
        while offset < end:
            self.file.seek(offset)
            data = self.file.read(min(_PIECE, end - offset))
            if not data:
                return
            offset += len(data)
            yield data


@frozen
class GeneratedFile:
    """One that was written to go with what lies there."""

    data: bytes = field(repr=False)

    @property
    def size(self) -> int:
        """See ``ArchiveFile``."""
        return len(self.data)

    def pieces(self) -> Iterator[bytes]:
        """See ``ArchiveFile``."""
        yield self.data


class Allowance:
    """The bytes of an archive's documents that may still be read into memory."""

    def __init__(self) -> None:
        self._left = DOCUMENTS

    def take(self, size: int) -> None:
        """:raises Refused: when there are too many of them."""
        self._left -= size
        if self._left < 0:
            raise ArchiveRefused("its manifests and configurations are too large together")


def document(members: dict[str, ArchiveFile], path: str) -> bytes:
    """The bytes of one that is read whole.

    :raises Refused: when it is not there, or too large for that.
    """
    member = members.get(path)
    if member is None:
        raise ArchiveRefused(f"{path} is missing")
    if member.size > DOCUMENT:
        raise ArchiveRefused(f"{path} is too large")
    return b"".join(member.pieces())


def read_members(file: BinaryIO) -> dict[str, ArchiveFile]:
    """The files of a tar file that is not compressed, and can be read at any place, by their paths.

    Symbolic links within the archive are passed over: docker's have such, and nothing here follows one.

    :raises Refused: when it is none, or one that no honest program has written.
    """
    end = file.seek(0, 2)
    file.seek(0)
    found: dict[str, ArchiveFile] = {}
    try:
        with tarfile.open(fileobj=cast(BinaryIO, _Headers(file)), mode="r:") as tar:
            last, count = -1, 0
            while (member := tar.next()) is not None:
                _check(member, last, end)
                last, count = member.offset_data, count + 1
                if count > _ENTRIES:
                    raise ArchiveRefused("it has too many entries")
                path = member.name.removeprefix("./")
                if member.isdir() or member.issym():
                    continue
                if path in found:
                    raise ArchiveRefused(f"{path} is in it twice")
                found[path] = StoredFileEntry(file, member.offset_data, member.size)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
        raise ArchiveRefused(f"this is no tar file that can be read: {error}") from None
    return found


class _Headers:
    """The file as tarfile sees it, which takes a header's word for how much there is to be read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER:
            raise ArchiveRefused("a header of the archive is too long")
        return self._file.read(size)

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()


_KINDS = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE)


def _check(member: tarfile.TarInfo, last: int, end: int) -> None:
    path = member.name
    if path.startswith("/") or ".." in path.split("/") or (member.issym() and _leads_out(member)):
        raise ArchiveRefused(f"{path!r} leads out of the archive")
    if member.type not in _KINDS or member.sparse is not None:
        raise ArchiveRefused(f"{path!r} is neither a file nor a directory")
    if member.size < 0 or member.offset_data <= last or member.offset_data + member.size > end:
        raise ArchiveRefused(f"{path!r} is said to be larger than the archive")


def _leads_out(link: tarfile.TarInfo) -> bool:
    target = normpath(join(dirname(link.name), link.linkname))
    return target.startswith("/") or target.split("/")[0] == ".."
