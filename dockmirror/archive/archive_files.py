"""The files in an archive, which may be malicious; all calls block."""

from __future__ import annotations

import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, join, normpath
from stat import S_ISREG
from typing import BinaryIO, Protocol, cast

from attrs import field, frozen

MAX_DOCUMENT_SIZE = 4 * 1024 * 1024
"""The largest document that is read into memory, in bytes."""
MAX_DOCUMENTS_SIZE = 128 * 1024 * 1024
"""The largest total size of an archive's documents, in bytes."""
_MAX_HEADER = 1024 * 1024
_MAX_ENTRIES = 100_000
_READ_SIZE = 1024 * 1024


class ArchiveRefused(Exception):
    """An archive is refused as a whole; the message is one sentence that says why."""


class ArchiveFile(Protocol):
    """A file in an archive."""

    @property
    def size(self) -> int:
        """The size in bytes."""

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes: fewer than ``size`` when the archive is truncated."""


@frozen
class StoredFileEntry:
    """A file that is stored in the archive."""

    file: BinaryIO = field(repr=False)
    offset: int
    size: int

    def pieces(self) -> Iterator[bytes]:
        offset, end = self.offset, self.offset + self.size
        while offset < end:
            self.file.seek(offset)
            data = self.file.read(min(_READ_SIZE, end - offset))
            if not data:
                return
            offset += len(data)
            yield data


def read_pieces(file: BinaryIO, offset: int = 0) -> Iterator[bytes]:
    """Yield the bytes of a file from an offset on."""
    return StoredFileEntry(file, offset, sys.maxsize).pieces()


@frozen
class DirectoryEntry:
    """A file in a directory with an OCI image layout; a link is not followed."""

    path: Path
    size: int

    def pieces(self) -> Iterator[bytes]:
        with open(os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            while data := file.read(_READ_SIZE):
                yield data


@frozen
class GeneratedFile:
    """A file that the mirror adds to an archive's own files."""

    data: bytes = field(repr=False)

    @property
    def size(self) -> int:
        return len(self.data)

    def pieces(self) -> Iterator[bytes]:
        yield self.data


class DocumentBudget:
    """The number of bytes of an archive's documents that may still be read into memory."""

    def __init__(self) -> None:
        self._left = MAX_DOCUMENTS_SIZE

    def take(self, size: int) -> None:
        """:raises ArchiveRefused: when the documents are too large together."""
        self._left -= size
        if self._left < 0:
            raise ArchiveRefused("its manifests and configurations are too large together")


def read_document(members: dict[str, ArchiveFile], path: str) -> bytes:
    """Return the bytes of a document.

    :raises ArchiveRefused: when it is missing or too large.
    """
    member = members.get(path)
    if member is None:
        raise ArchiveRefused(f"{path} is missing")
    if member.size > MAX_DOCUMENT_SIZE:
        raise ArchiveRefused(f"{path} is too large")
    return b"".join(member.pieces())


def read_members(file: BinaryIO) -> dict[str, ArchiveFile]:
    """Return the files of an uncompressed, seekable tar file by their paths.

    Symbolic links within the archive are ignored: docker's archives have them, and nothing here follows one.

    :raises ArchiveRefused: when it is no tar file, or one that no honest program has written.
    """
    end = file.seek(0, 2)
    file.seek(0)
    found: dict[str, ArchiveFile] = {}
    try:
        with tarfile.open(fileobj=cast(BinaryIO, _HeaderReader(file)), mode="r:") as tar:
            last, count = -1, 0
            while (member := tar.next()) is not None:
                _check(member, last, end)
                last, count = member.offset_data, count + 1
                if count > _MAX_ENTRIES:
                    raise ArchiveRefused("it has too many entries")
                path = member.name.removeprefix("./")
                if member.isdir() or member.issym():
                    continue
                if path in found:
                    raise ArchiveRefused(f"{path} is in it twice")
                found[path] = StoredFileEntry(file, member.offset_data, member.size)
            if _has_data(file, tar.offset):
                raise ArchiveRefused(
                    f"it is damaged or ends at byte {tar.offset}, and more follows: copy it again, and give"
                    " each archive as a file of its own"
                )
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
        raise ArchiveRefused(
            f"this is not a tar file, plain or compressed with gzip or zstd: {error}"
        ) from None
    return found


def read_directory(directory: Path) -> dict[str, ArchiveFile]:
    """Return the files of a directory by their paths in it; what is neither file nor directory is left out.

    :raises ArchiveRefused: when it has too many files.
    :raises OSError: when it cannot be read.
    """
    found: dict[str, ArchiveFile] = {}
    for parent, _, names in os.walk(directory, onerror=_raise):
        for name in names:
            path = Path(parent, name)
            status = path.lstat()
            if S_ISREG(status.st_mode):
                found[str(path.relative_to(directory))] = DirectoryEntry(path, status.st_size)
            if len(found) > _MAX_ENTRIES:
                raise ArchiveRefused("it has too many entries")
    return found


def _raise(error: OSError) -> None:
    raise error


class _HeaderReader:
    """The file as tarfile sees it, which trusts a header for the number of bytes to read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise ArchiveRefused("a header of the archive is too long")
        return self._file.read(size)

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()


_ENTRY_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE)


def _check(member: tarfile.TarInfo, last: int, end: int) -> None:
    path = member.name
    if path.startswith("/") or ".." in path.split("/") or (member.issym() and _leads_out(member)):
        raise ArchiveRefused(f"{path!r} leads out of the archive")
    if member.type not in _ENTRY_TYPES or member.sparse is not None:
        raise ArchiveRefused(f"{path!r} is neither a file nor a directory")
    if member.size < 0 or member.offset_data <= last:
        raise ArchiveRefused(f"the entry of {path!r} is malformed")
    if member.offset_data + member.size > end:
        raise ArchiveRefused(f"it is cut off in {path!r}: copy it again, and name all of its parts")


def _has_data(file: BinaryIO, offset: int) -> bool:
    """Return whether anything but zeros follows."""
    return any(data.strip(b"\0") for data in read_pieces(file, offset))


def _leads_out(link: tarfile.TarInfo) -> bool:
    target = normpath(join(dirname(link.name), link.linkname))
    return target.startswith("/") or target.split("/")[0] == ".."
