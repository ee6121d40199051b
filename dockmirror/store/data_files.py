"""The bytes of contents; calls that block."""

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
    """Whether this is the file of a content: an empty one is that of nothing else."""
    try:
        status = os.stat(data)
    except OSError:
        return False
    return S_ISREG(status.st_mode) and (status.st_size > 0 or digest.matches(b""))


def open_file(data: Path) -> int:
    """The open file, for its caller to close.

    :raises OSError: when there is none, or something else in its place.
    """
    file = os.open(data, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    raise IsADirectoryError(f"{data} is no file")


def read_verified(data: Path, file: int, digest: Digest) -> bytes | None:
    """Everything in an open file, or None where it is not the content: that file is removed then.

    :raises OSError: when the disk does not give it: it is removed then, too.
    """
    with _readable(data, file):
        content = atomic_file.read_all(file)
    if digest.matches(content):
        return content
    _remove(data, file)
    return None


def is_verified(data: Path, file: int, digest: Digest) -> bool:
    """Whether an open file, read to its end, is the content; it is removed where it is not.

    :raises OSError: see ``read_verified``.
    """
    verifier = digest.verifier()
    offset = 0
    with _readable(data, file):
        while piece := os.pread(file, _PIECE, offset):
            verifier.update(piece)
            offset += len(piece)
    if not verifier.verified():
        _remove(data, file)
        return False
    return True


@contextmanager
def _readable(data: Path, file: int) -> Iterator[None]:
    """What a disk has lost would else be in the way of what is fetched in its place."""
    try:
        yield
    except OSError as error:
        if error.errno == EIO:
            with suppress(OSError):
                _remove(data, file)
        raise


def _remove(data: Path, file: int) -> None:
    """Unless another file has its name by now."""
    with suppress(FileNotFoundError):
        if os.path.samestat(os.stat(data), os.fstat(file)):
            os.unlink(data)
