"""Transfer bytes of a file to a consumer: by ``sendfile``, or by reading and writing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from ..oci.errors import Unavailable
from .file_reader import PIECE, FileReader, SendFile

_SENT = 4 * 1024 * 1024  # at a time; the reactor waits until the socket's buffer has taken it
_BROUGHT = 1024 * 1024  # read from the disk at a time


class ITransfer(Protocol):
    """A way to transfer bytes to a consumer, chosen once per delivery."""

    def try_send(self, file: FileReader, offset: int, length: int) -> int | None:
        """Transfer some bytes without waiting for the disk; return how many.

        0 if the consumer accepts nothing now; None if the disk must be waited for.

        :raises Unavailable: if the file is too short or cannot be read.
        """

    async def read_then_send(self, file: FileReader, offset: int, length: int) -> Callable[[], int]:
        """Wait for the disk in a thread; the result transfers the bytes and returns how many.

        :raises Unavailable: if the file is too short or cannot be read.
        """


class SendfileTransfer:
    """The kernel transfers the bytes.

    :param send_file: ``IFileConsumer.send_file`` of the consumer.
    """

    def __init__(self, send_file: SendFile) -> None:
        self._send_file = send_file

    def try_send(self, file: FileReader, offset: int, length: int) -> int | None:
        sendable = file.sendable(offset, min(_SENT, length))
        return self._send(file, offset, sendable) if sendable else None

    async def read_then_send(self, file: FileReader, offset: int, length: int) -> Callable[[], int]:
        """Read the bytes into the page cache first."""
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
    """The bytes are read into memory and written."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write_piece = write

    def try_send(self, file: FileReader, offset: int, length: int) -> int | None:
        piece = file.read_nowait(offset, min(PIECE, length))
        return None if piece is None else self._write(piece)

    async def read_then_send(self, file: FileReader, offset: int, length: int) -> Callable[[], int]:
        with _readable():
            piece = await file.read(offset, min(PIECE, length))
        return partial(self._write, piece)

    def _write(self, piece: bytes) -> int:
        if not piece:
            raise _shorter()
        self._write_piece(piece)
        return len(piece)


def _read(file: int, offset: int, length: int) -> int:
    """Read bytes into the page cache; return how many."""
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
