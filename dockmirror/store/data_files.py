"""Files that hold the bytes of contents; all calls block."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EIO
from pathlib import Path
from stat import S_ISREG

from ..oci.digest import Digest
from . import atomic_file

_PIECE = 1024 * 1024


def is_stored(data: Path, digest: Digest) -> bool:
    """Report whether the content's file exists; only the empty content may have an empty file."""
    try:
        status = os.stat(data)
    except OSError:
        return False
    return S_ISREG(status.st_mode) and (status.st_size > 0 or digest.matches(b""))


def open_file(data: Path) -> int:
    """Open a regular file; the caller closes it.

    :raises OSError: if it is missing or not a regular file.
    """
    file = os.open(data, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    raise IsADirectoryError(f"{data} is not a regular file")


def read_verified(data: Path, file: int, digest: Digest) -> bytes | None:
    """Read an open file; if it does not match the digest, delete it and return None.

    :raises OSError: if the disk cannot read it; it is deleted on an I/O error.
    """
    with _readable(data, file):
        content = atomic_file.read_all(file)
    if digest.matches(content):
        return content
    _remove(data, file)
    return None


def verify_or_delete(data: Path, file: int, digest: Digest) -> bool:
    """Verify an open file and delete it if it does not match the digest; report whether it does.

    :raises OSError: like ``read_verified``.
    """
    verifier = digest.verifier()
    offset = 0
    with _readable(data, file):
        while piece := os.pread(file, _PIECE, offset):
            verifier.update(piece)
            offset += len(piece)
    if not verifier.matches():
        _remove(data, file)
        return False
    return True


@contextmanager
def _readable(data: Path, file: int) -> Iterator[None]:
    """Delete a file with bad sectors, so that it can be fetched again."""
    try:
        yield
    except OSError as error:
        if error.errno == EIO:
            with suppress(OSError):
                _remove(data, file)
        raise


def _remove(data: Path, file: int) -> None:
    """Delete the file, unless its name belongs to another file by now."""
    with suppress(FileNotFoundError):
        if os.path.samestat(os.stat(data), os.fstat(file)):
            os.unlink(data)
