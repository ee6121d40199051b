"""Open contents on the disk, read and delivered without blocking the reactor."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from errno import EBADF
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from attrs import define, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IReactorTime
from zope.interface import implementer

from ..body.bodies import BytesBody, collect
from ..body.consumers import CoroutineProducer
from ..concurrency.coroutines import RunInThread, shield
from ..interfaces import IAccelConsumer, IBody, IFileConsumer, IStoredContent
from ..oci.digest import Descriptor
from ..oci.errors import Unavailable
from ..oci.header_fields import ContentRange
from .files import is_sealed

PIECE = 256 * 1024
"""Bytes that are read, and kept in memory, at a time."""
_MIN_STEP, _MAX_STEP = 128 * 1024, 4 * 1024 * 1024
_BYTE = bytearray(1)

SendFile = Callable[[int, int, int], int | None]
T = TypeVar("T")


class FileReader:
    """Reads cached pages at once and everything else in a thread."""

    def __init__(self, file: int, in_thread: RunInThread) -> None:
        self._file = file
        self._in_thread = in_thread
        self._step = _MIN_STEP
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
                self._step = min(2 * self._step, _MAX_STEP)
                count += step
            elif self._step == _MIN_STEP:
                break
            else:
                self._step = _MIN_STEP
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
        return await shield(self._count_use(calling))

    def is_sealed_at(self, path: Path) -> bool:
        """Report whether the file is sealed, and still has this path."""
        if self._closed:
            return False
        try:
            opened, named = os.fstat(self._file), os.stat(path)
        except OSError:
            return False
        return os.path.samestat(opened, named) and is_sealed(named)

    def close(self) -> None:
        """Close the file as soon as no thread uses it any more."""
        if not self._closed:
            self._closed = True
            self._close_if_unused()

    async def _count_use(self, calling: Awaitable[T]) -> T:
        try:
            return await calling
        finally:
            self._uses -= 1
            if self._closed:
                self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._uses:
            return
        if os.fstat(self._file).st_nlink:
            os.close(self._file)
        else:  # evicted: closing it frees the bytes, which may take a while
            shield(self._in_thread(partial(os.close, self._file)))


_MAX_SENT = 4 * 1024 * 1024  # at a time; the reactor waits until the socket's buffer has taken it
_MAX_PREREAD = 1024 * 1024  # read from the disk at a time


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
        sendable = file.sendable(offset, min(_MAX_SENT, length))
        return self._send(file, offset, sendable) if sendable else None

    async def read_then_send(self, file: FileReader, offset: int, length: int) -> Callable[[], int]:
        """Read the bytes into the page cache first."""
        with _readable():
            count = await file.in_thread(partial(_read, offset=offset, length=min(_MAX_PREREAD, length)))
        if not count:
            raise _too_short()
        return partial(self._send, file, offset, count)

    def _send(self, file: FileReader, offset: int, length: int) -> int:
        with _readable():
            sent = file.send(self._send_file, offset, length)
        if sent == 0:
            raise _too_short()
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
            raise _too_short()
        self._write_piece(piece)
        return len(piece)


def choose_transfer(producer: CoroutineProducer, consumer: IConsumer) -> ITransfer:
    """Return the way to transfer a large body to the producer's consumer."""
    if IFileConsumer.providedBy(consumer):
        return SendfileTransfer(producer.send_file)
    return CopyTransfer(producer.write)


def _read(file: int, offset: int, length: int) -> int:
    """Read bytes into the page cache; return how many."""
    count = 0
    while count < length and (piece := os.pread(file, min(PIECE, length - count), offset + count)):
        count += len(piece)
    return count


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable("the stored content cannot be read") from error


def _too_short() -> Unavailable:
    return Unavailable("the stored content is shorter than it was")


@frozen
class SharedFile:
    """The name of a blob's file, by which a proxy in front may open it.

    :ivar blobs: the directory of blobs, below which the name lies.
    """

    blobs: Path
    name: PurePosixPath

    @property
    def path(self) -> Path:
        return self.blobs / self.name


@implementer(IBody)
@define(eq=False)
class FileBody:
    """Ranges of a file with bytes between them; the delivery fails if the file has become shorter.

    :param shared: its name, if a proxy in front may read it.
    """

    _reader: FileReader
    descriptor: Descriptor
    _segments: Sequence[bytes | ContentRange]
    _clock: IReactorTime
    _shared: SharedFile | None = None

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Deliver the body; small ones are written at once so that they share a packet with the head."""
        if self._is_sent_by_proxy(consumer):
            self._reader.close()
            return succeed(None)
        large = (self.descriptor.size or 0) > PIECE
        data = None if large else self._read_nowait()
        if data is not None:
            self._reader.close()
            consumer.write(data)
            return succeed(None)
        producer = CoroutineProducer(consumer, self._clock, self._reader.close)
        transfer = choose_transfer(producer, consumer) if large else CopyTransfer(producer.write)
        return producer.follow(self._deliver(producer, transfer, large))

    def discard(self) -> None:
        self._reader.close()

    def _read_nowait(self) -> bytes | None:
        """Return a body of one part; None if the disk must be waited for, or has less."""
        if len(self._segments) != 1:
            return None
        (part,) = self._segments
        if isinstance(part, bytes):
            return None
        length = part.last + 1 - part.first
        data = self._reader.read_nowait(part.first, length)
        return None if data is None or len(data) < length else data

    def _is_sent_by_proxy(self, consumer: IConsumer) -> bool:
        """Leave one part of a file that is still sealed to a proxy, if there is one that takes it."""
        if self._shared is None or len(self._segments) != 1 or not IAccelConsumer.providedBy(consumer):
            return False
        (part,) = self._segments
        if isinstance(part, bytes) or not self._reader.is_sealed_at(self._shared.path):
            return False
        return consumer.send_by_proxy(self._shared.name, part)

    async def _deliver(self, producer: CoroutineProducer, transfer: ITransfer, large: bool) -> None:
        if large:
            producer.register()
        for segment in self._segments:
            if isinstance(segment, bytes):
                await producer.ready()
                producer.write(segment)
            else:
                await self._deliver_range(producer, transfer, segment)

    async def _deliver_range(
        self, producer: CoroutineProducer, transfer: ITransfer, part: ContentRange
    ) -> None:
        offset = part.first
        while offset <= part.last:
            await producer.ready()
            length = part.last + 1 - offset
            sent = transfer.try_send(self._reader, offset, length)
            if sent is None:
                producer.register()
                send = await transfer.read_then_send(self._reader, offset, length)
                await producer.ready()  # it may have been paused meanwhile
                sent = send()
            offset += sent


@implementer(IStoredContent)
class StoredBytes:
    """A content in memory."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data

    def body(self, descriptor: Descriptor, segments: Sequence[bytes | ContentRange]) -> IBody:
        if len(segments) == 1:  # the whole content, mostly, which is not copied
            return BytesBody(self._segment(segments[0]), descriptor)
        return BytesBody(b"".join(map(self._segment, segments)), descriptor)

    def close(self) -> None:
        """Do nothing."""

    def _segment(self, segment: bytes | ContentRange) -> bytes:
        return segment if isinstance(segment, bytes) else self._data[segment.first : segment.last + 1]


@implementer(IStoredContent)
@define(eq=False)
class OpenFile:
    """A content in an open file.

    :param shared: its name, if a proxy in front may read it.
    """

    _reader: FileReader
    size: int
    _clock: IReactorTime
    _shared: SharedFile | None = None

    def body(self, descriptor: Descriptor, segments: Sequence[bytes | ContentRange]) -> IBody:
        return FileBody(self._reader, descriptor, segments, self._clock, self._shared)

    def close(self) -> None:
        self._reader.close()


async def read_content(opened: IStoredContent) -> bytes:
    """Read all bytes of an open content.

    :raises RegistryError: if the delivery fails.
    """
    segments = [ContentRange(0, opened.size - 1, opened.size)] if opened.size else []
    return await collect(opened.body(Descriptor(size=opened.size), segments), opened.size)
