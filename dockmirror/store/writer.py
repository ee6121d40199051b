"""Write and hash a growing file without blocking the reactor."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import ClassVar

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IProducer, IPushProducer, IReactorTime

from ..oci.digest import Digest, Verifier
from .file_body import FileReader

SLOW_WRITE = 0.05
"""Seconds; after a longer write, threads write until one of them is quicker."""
HASH_STEP = 4 * 1024 * 1024
"""Bytes that a thread hashes at a time."""
_HASH_PIECE = 1024 * 1024


class BackgroundHasher:
    """Hashes the bytes of a growing file in order, in threads that follow the writer.

    :ivar hashed: the number of bytes that were hashed.
    """

    def __init__(self, digest: Digest, file: FileReader) -> None:
        self.file = file
        self.hashed = 0
        self._verifier = digest.verifier()
        self._one_at_a_time = DeferredLock()
        self._error: OSError | None = None

    async def catch_up(self, until: int, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """Hash the file up to there, as long as that is wanted.

        :raises OSError: if the file cannot be read, or could not before: it is not read again.
        """
        async with self._one_at_a_time:
            while self.hashed < until and is_wanted():
                if self._error is not None:
                    raise self._error
                try:
                    await self.file.in_thread(partial(self._hash, min(until, self.hashed + HASH_STEP)))
                except OSError as error:
                    self._error = error
                    raise

    async def matches(self, length: int) -> bool:
        """Report whether the digest is that of the whole file, which has this length.

        :raises OSError: if the file cannot be read.
        """
        await self.catch_up(length)
        return self._verifier.matches()

    def verifier(self) -> Verifier:
        """Return a verifier of the hashed bytes; must not be called while a thread hashes."""
        return self._verifier.copy()

    def _hash(self, until: int, descriptor: int) -> None:
        buffer = memoryview(bytearray(min(_HASH_PIECE, until - self.hashed)))
        while self.hashed < until:
            count = os.preadv(descriptor, [buffer[: until - self.hashed]], self.hashed)
            if not count:
                raise OSError(f"a partial file has become shorter than {until} bytes")
            self._verifier.update(buffer[:count])
            self.hashed += count


class BackloggedConsumer:
    """Pauses the sender of a body while too much of it waits, until half of that is left.

    :ivar max_backlog: bytes.
    """

    max_backlog: ClassVar[int]
    _producer: IPushProducer | None = None
    _is_paused = False

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        self._producer, self._is_paused = IPushProducer(producer), False

    def unregisterProducer(self) -> None:
        self._producer = None

    def adjust_pace(self, backlog: int) -> None:
        """Pause or resume the sender, if there is one."""
        if self._producer is None:
            return
        if not self._is_paused and backlog > self.max_backlog:
            self._is_paused = True
            self._producer.pauseProducing()
        elif self._is_paused and backlog <= self.max_backlog // 2:
            self._is_paused = False
            self._producer.resumeProducing()


@define(eq=False)
class AsyncFileWriter:
    """Writes at once, and in threads for as long as the disk makes writers wait.

    :ivar length: the number of bytes in the file.
    :ivar pending: the number of bytes that are not written yet.
    :param write_at: writes all of the data at an offset, which may block.
    :param on_growth: called when the file has grown; it must not fail.
    :param on_failure: called when pending bytes cannot be written.
    """

    _write_at: Callable[[bytes, int], None]
    _file: FileReader
    length: int
    _clock: IReactorTime
    _on_growth: Callable[[], None]
    _on_failure: Callable[[OSError], None]
    pending: int = field(default=0, init=False)
    _is_slow: bool = field(default=False, init=False)
    _pieces: list[bytes] = field(factory=list, init=False)
    _writing: DeferredLock = field(factory=DeferredLock, init=False)

    def write(self, data: bytes) -> None:
        """Write the next bytes.

        :raises OSError: if that fails; a part may have been written.
        """
        if self._is_slow or self.pending:
            self._pieces.append(data)
            self.pending += len(data)
            if not self._writing.locked:
                Deferred.fromCoroutine(self._write_pending())
        else:
            self._write(data)
            self.length += len(data)
            self._on_growth()

    async def flushed(self) -> None:
        """Wait until nothing is being written any more."""
        async with self._writing:
            pass

    async def _write_pending(self) -> None:
        async with self._writing:
            while self._pieces:
                data = b"".join(self._pieces)
                self._pieces.clear()
                try:
                    await self._file.in_thread(partial(self._write, data))
                except OSError as error:
                    self._pieces.clear()
                    self._on_failure(error)
                    return
                self.pending -= len(data)
                self.length += len(data)
                self._on_growth()

    def _write(self, data: bytes, _: int = -1) -> None:
        started = self._clock.seconds()
        self._write_at(data, self.length)
        self._is_slow = self._clock.seconds() - started > SLOW_WRITE
