"""Bytes of a file moved to a consumer: by the kernel, or read and written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from ..oci.errors import Unavailable
from .file_reader import PIECE, FileReader, SendFile

_SENT = 4 * 1024 * 1024  # at a time, or what a socket's buffer takes: the reactor waits meanwhile
_BROUGHT = 1024 * 1024  # from the disk at a time


class ITransfer(Protocol):
    """How bytes get to a consumer; chosen once for a delivery."""

    def try_send(self, file: FileReader, offset: int, length: int) -> int | None:
        """Moves some of these bytes without waiting for the disk, and tells how many.

        0 where the consumer takes nothing just now; None where the disk must be waited for.

        :raises Unavailable: when the file has ended, or gives nothing.
        """

    async def read_then_send(self, file: FileReader, offset: int, length: int) -> Callable[[], int]:
        """Waits for the disk, in a thread; the result moves what has come, and tells how much.

        :raises Unavailable: when the file has ended, or gives nothing.
        """


class SendfileTransfer:
    """The kernel moves them.

    :param send_file: that of an ``IFileConsumer``.
    """

    def __init__(self, send_file: SendFile) -> None:
        self._send_file = send_file

    def try_send(self, file: FileReader, offset: int, length: int) -> int | None:
        """See ``ITransfer``."""
        sendable = file.sendable(offset, min(_SENT, length))
        return self._send(file, offset, sendable) if sendable else None

    async def read_then_send(self, file: FileReader, offset: int, length: int) -> Callable[[], int]:
        """See ``ITransfer``; the bytes come into the page cache."""
        with _readable():
            come = await file.in_thread(partial(_read, offset=offset, length=min(_BROUGHT, length)))
        if not come:
            raise _shorter()
        return partial(self._send, file, offset, come)

    def _send(self, file: FileReader, offset: int, length: int) -> int:
        with _readable():
            sent = file.send(self._send_file, offset, length)
        if sent == 0:
            raise _shorter()
        return sent or 0


class CopyTransfer:
    """They are read and written."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write_piece = write

    def try_send(self, file: FileReader, offset: int, length: int) -> int | None:
        """See ``ITransfer``."""
        piece = file.read_nowait(offset, min(PIECE, length))
        return None if piece is None else self._write(piece)

    async def read_then_send(self, file: FileReader, offset: int, length: int) -> Callable[[], int]:
        """See ``ITransfer``."""
        with _readable():
            piece = await file.read(offset, min(PIECE, length))
        return partial(self._write, piece)

    def _write(self, piece: bytes) -> int:
        if not piece:
            raise _shorter()
        self._write_piece(piece)
        return len(piece)


def _read(file: int, offset: int, length: int) -> int:
    """How many bytes have come; they are in the page cache now."""
    come = 0
    while come < length and (piece := os.pread(file, min(PIECE, length - come), offset + come)):
        come += len(piece)
    return come


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable("the stored content cannot be read") from error


def _shorter() -> Unavailable:
    return Unavailable("the stored content is shorter than it was")
