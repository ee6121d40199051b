"""Read an open file without blocking the reactor."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from errno import EBADF
from functools import partial
from typing import TypeVar

from .threads import RunInThread, shield

PIECE = 256 * 1024
"""Bytes that are read, and kept in memory, at a time."""
_NEAR, _FAR = 128 * 1024, 4 * 1024 * 1024
_BYTE = bytearray(1)

SendFile = Callable[[int, int, int], int | None]
T = TypeVar("T")


class FileReader:
    """Reads cached pages at once and everything else in a thread."""

    def __init__(self, file: int, in_thread: RunInThread) -> None:
        self._file = file
        self._in_thread = in_thread
        self._step = _NEAR
        self._uses = 0
        self._closed = False

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        """Read the cached beginning of a range.

        None if nothing of it is cached or the file system cannot tell.
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
        """Estimate how many bytes can be sent without waiting for the disk.

        Only the last byte of each step is probed: disks are read ahead in order, so that the pages before a
        cached page mostly are cached, too. The step doubles up to 4 MiB while probes succeed, and
        falls back to the shortest when one fails.
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
        """Call ``send_file``; see ``IFileConsumer``."""
        if self._closed:
            raise OSError(EBADF, os.strerror(EBADF))
        return send_file(self._file, offset, length)

    async def read(self, offset: int, length: int) -> bytes:
        """Read a range in a thread; the result is shorter at the file's end.

        :raises OSError: if the disk fails or the file was closed.
        """
        return await self.in_thread(lambda file: os.pread(file, length, offset))

    async def in_thread(self, call: Callable[[int], T]) -> T:
        """Call something with the descriptor in a thread; the file stays open until that returns.

        :raises OSError: as the call does, or if the file was closed.
        """
        if self._closed:
            raise OSError(EBADF, os.strerror(EBADF))
        self._uses += 1
        calling = self._in_thread(partial(call, self._file))
        return await shield(self._counted(calling), late=lambda _: None)

    def close(self) -> None:
        """Close the file as soon as no thread uses it any more."""
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
        else:  # evicted: closing it frees the bytes, which may take a while
            shield(self._in_thread(partial(os.close, self._file)), late=lambda _: None)
