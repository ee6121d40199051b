"""An open file, read without being in the reactor's way."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from errno import EBADF
from functools import partial
from typing import TypeVar

from .threads import RunInThread, shield

PIECE = 256 * 1024
"""How many bytes of a file are read, and held, at a time."""
_NEAR, _FAR = 128 * 1024, 4 * 1024 * 1024
_BYTE = bytearray(1)

SendFile = Callable[[int, int, int], int | None]
T = TypeVar("T")


class FileReader:
    """An open file that is read from the page cache at once, and from the disk in a thread."""

    def __init__(self, file: int, in_thread: RunInThread) -> None:
        self._file = file
        self._in_thread = in_thread
        self._step = _NEAR
        self._uses = 0
        self._closed = False

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        """What can be had without waiting, perhaps a beginning of it.

        None where that is nothing, or where the file system cannot tell.
        """
        if self._closed:
            return None
        buffer = bytearray(length)
        try:
            count = os.preadv(self._file, [buffer], offset, os.RWF_NOWAIT)
        except OSError:
            return None
        return bytes(memoryview(buffer)[:count])

    def sendable(self, offset: int, length: int) -> int:
        """How many of these bytes can be sent without waiting, as looks at the last one of each step tell.

        Disks are read in order: before a byte that is in the page cache mostly is what precedes it.  So a
        file that is there wherever it is looked at is looked at in ever longer steps, up to 4 MiB; where
        it once is not, in the shortest again.
        """
        count = 0
        while count < length and not self._closed:
            step = min(self._step, length - count)
            if self._is_cached(offset + count + step - 1):
                self._step = min(2 * self._step, _FAR)
                count += step
            elif self._step == _NEAR:
                break
            else:
                self._step = _NEAR
        return count

    def _is_cached(self, offset: int) -> bool:
        try:
            os.preadv(self._file, [_BYTE], offset, os.RWF_NOWAIT)
        except OSError:
            return False
        return True

    def send(self, send_file: SendFile, offset: int, length: int) -> int | None:
        """What comes of ``send_file``; see ``IFileConsumer``."""
        if self._closed:
            raise OSError(EBADF, os.strerror(EBADF))
        return send_file(self._file, offset, length)

    async def read(self, offset: int, length: int) -> bytes:
        """These bytes, fewer at the file's end.

        :raises OSError: when the disk does not give them, or the file has been given back.
        """
        return await self.in_thread(lambda file: os.pread(file, length, offset))

    async def in_thread(self, call: Callable[[int], T]) -> T:
        """What comes of a call with the descriptor in a thread; it stays open until that is over.

        :raises OSError: as the call does, or because the file has been given back.
        """
        if self._closed:
            raise OSError(EBADF, os.strerror(EBADF))
        self._uses += 1
        calling = self._in_thread(partial(call, self._file))
        return await shield(self._counted(calling), late=lambda _: None)

    def close(self) -> None:
        """Gives the file back, as soon as no thread uses it any more."""
        if not self._closed:
            self._closed = True
            self._give_back()

    async def _counted(self, calling: Awaitable[T]) -> T:
        try:
            return await calling
        finally:
            self._uses -= 1
            if self._closed:
                self._give_back()

    def _give_back(self) -> None:
        if self._uses:
            return
        if os.fstat(self._file).st_nlink:
            os.close(self._file)
        else:  # evicted: its bytes are freed now, which takes a disk a while
            shield(self._in_thread(partial(os.close, self._file)), late=lambda _: None)
