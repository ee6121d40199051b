"""What has come of a blob, on its way to the page cache."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime

from ..reader import FileReader
from .partial import Partial

SLOW = 0.05
"""Seconds; a write that takes longer leaves those after it to threads, until one there does not."""


class Writer:
    """Writes at once, and in threads for as long as the disk makes writing wait.

    :ivar length: how many bytes lie in the file.
    :ivar waiting: how many were taken and are not written yet.
    :param grew: is called when there are more.
    :param failed: is told why what waits is not written.
    """

    def __init__(
        self,
        partial: Partial,
        file: FileReader,
        length: int,
        clock: IReactorTime,
        grew: Callable[[], None],
        failed: Callable[[OSError], None],
    ) -> None:
        self.length = length
        self.waiting = 0
        self._partial = partial
        self._file = file
        self._clock = clock
        self._grew = grew
        self._failed = failed
        self._slow = False
        self._pieces: list[bytes] = []
        self._in_thread = DeferredLock()

    def write(self, data: bytes) -> None:
        """:raises OSError: when the disk takes nothing; a part of the data may have been written."""
        if self._slow or self.waiting:
            self._pieces.append(data)
            self.waiting += len(data)
            if not self._in_thread.locked:
                Deferred.fromCoroutine(self._catch_up())
        else:
            self._write(data)
            self.length += len(data)
            self._grew()

    async def flushed(self) -> None:
        """Fires when nothing is being written any more."""
        async with self._in_thread:
            pass

    async def _catch_up(self) -> None:
        async with self._in_thread:
            while self._pieces:
                data = b"".join(self._pieces)
                self._pieces.clear()
                try:
                    await self._write_in_thread(data)
                except OSError as error:
                    self._pieces.clear()
                    self._failed(error)
                    return
                self.waiting -= len(data)
                self.length += len(data)
                self._grew()

    async def _write_in_thread(self, data: bytes) -> None:
        await self._file.in_thread(lambda _: self._write(data))

    def _write(self, data: bytes) -> None:
        started = self._clock.seconds()
        self._partial.write(data, self.length)
        self._slow = self._clock.seconds() - started > SLOW
