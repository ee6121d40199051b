"""A body that is read from a file with back-pressure."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProducer
from twisted.internet.task import Clock

from dockmirror.body.consumers import BURST
from dockmirror.concurrency.coroutines import RunInThread
from dockmirror.oci.digest import Descriptor
from dockmirror.oci.errors import Unavailable
from dockmirror.oci.header_fields import ContentRange
from dockmirror.store.file_body import PIECE, FileBody, FileReader

from ..answering import FileRecorder, Recorder, watch
from .downloads.upstream import all_closed
from .page_cache import cold_pages
from .threads import HeldThreads, inline

SIZE = 5 * PIECE + 1000
MEBIBYTE = 1024 * 1024
DATA = os.urandom(SIZE)
OpenReader = Callable[[int, RunInThread], FileReader]
MakeRecorder = Callable[[], Recorder]
End = Callable[[Deferred[None], Recorder], type[Exception]]


class Cold(FileReader):
    """A file of which nothing is in the page cache."""

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        return None

    def sendable(self, offset: int, length: int) -> int:
        return 0


class Slow(Recorder):
    """A consumer that pauses its producer after each write, like a transport."""

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.producer is not None:
            self.producer.pauseProducing()


class Gone(Recorder):
    """A consumer whose connection was lost before it had a producer."""

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        super().registerProducer(producer, streaming)
        self.leave()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A file that must be closed at the end."""
    path = tmp_path / "data"
    path.write_bytes(DATA)
    with all_closed(tmp_path):
        yield path


def body_of(
    path: Path,
    in_thread: RunInThread = inline,
    reader: OpenReader = FileReader,
    clock: Clock | None = None,
    segments: Sequence[bytes | ContentRange] = (ContentRange(0, SIZE - 1, SIZE),),
) -> FileBody:
    """Return the body of the whole file, or of those segments."""
    file = os.open(path, os.O_RDONLY)
    size = sum(len(each) if isinstance(each, bytes) else each.length for each in segments)
    return FileBody(reader(file, in_thread), Descriptor(None, None, size), segments, clock or Clock())


@pytest.mark.parametrize("reader", [FileReader, Cold])
def test_back_pressure(path: Path, reader: OpenReader) -> None:
    """A piece is written each time the consumer resumes the producer, which is unregistered at the end."""
    slow = Slow()
    outcome = watch(body_of(path, reader=reader).deliver(slow))
    for count in range(1, 6):
        assert slow.pieces == [DATA[n * PIECE : (n + 1) * PIECE] for n in range(count)]
        assert outcome == []
        slow.resume()
    assert (slow.data, slow.producer, outcome) == (DATA, None, [None])


def test_small_bodies_are_written(path: Path) -> None:
    """A body that is written in one turn registers no producer, so that it shares a packet with the head."""

    class Unwilling(FileRecorder):
        def registerProducer(self, producer: IProducer, streaming: bool) -> None:
            raise AssertionError("not needed")

    recorder = Unwilling(0)
    content = body_of(path, segments=[b"<", ContentRange(10, PIECE + 7, SIZE), b">"])
    assert watch(content.deliver(recorder)) == [None]
    assert (recorder.data, recorder.sent) == (b"<" + DATA[10 : PIECE + 8] + b">", [])


@pytest.mark.parametrize("paused", [False, True])
def test_reactor_gets_its_turn(path: Path, paused: bool) -> None:
    """The reactor gets its turn, however much the consumer accepts; the consumer may pause then."""
    clock, recorder = Clock(), Recorder()
    outcome = watch(body_of(path, clock=clock).deliver(recorder))
    assert (len(recorder.data), outcome) == (BURST, [])
    if paused:
        recorder.pause()
        clock.advance(0)
        assert (len(recorder.data), outcome) == (BURST, [])
        recorder.resume()
    clock.advance(0)
    assert (recorder.data, outcome) == (DATA, [None])


def test_uncached_pages_are_read_in_a_thread(path: Path) -> None:
    """Uncached pages are read in a thread, one piece at a time, and written on demand."""
    threads, slow = HeldThreads(), Slow()
    outcome = watch(body_of(path, threads, Cold).deliver(slow))
    slow.pause()
    threads.run()
    assert slow.pieces == []
    for count in range(1, 7):
        slow.resume()
        assert (len(slow.pieces), outcome) == (count, [None] * (count == 6))
        if not outcome:
            assert threads.held == 0
            slow.resume()
            slow.pause()
            threads.run()
    assert slow.data == DATA


def _cancel(delivery: Deferred[None], recorder: Recorder) -> type[Exception]:
    delivery.cancel()
    return CancelledError


def _leave(delivery: Deferred[None], recorder: Recorder) -> type[Exception]:
    recorder.leave()
    return Unavailable


ends = pytest.mark.parametrize("end", [_cancel, _leave])


@ends
@pytest.mark.parametrize("reader", [FileReader, Cold])
@pytest.mark.parametrize("consumer", [Slow, Recorder, partial(FileRecorder, 1000)])
def test_an_ended_delivery_writes_nothing_more(
    path: Path, end: End, reader: OpenReader, consumer: MakeRecorder
) -> None:
    """A delivery ends at once: paused, between bursts, or while a thread reads, which closes the file."""
    threads, clock, recorder = HeldThreads(), Clock(), consumer()
    outcome = watch(delivery := body_of(path, threads, reader, clock).deliver(recorder))
    written = recorder.data
    assert end(delivery, recorder) is type(outcome[0])
    assert (threads.held, clock.getDelayedCalls()) == (int(reader is Cold), [])
    while threads.held:
        threads.run()
    assert (recorder.data, recorder.producer, len(outcome)) == (written, None, 1)


def test_cancelled_while_it_writes(path: Path) -> None:
    """A consumer may cancel the delivery during a write."""

    class Sated(Slow):
        """A consumer that has enough after two pieces."""

        def write(self, data: bytes) -> None:
            super().write(data)
            if len(self.pieces) == 2:
                delivery.cancel()

    sated = Sated()
    outcome = watch(delivery := body_of(path).deliver(sated))
    sated.resume()
    assert [type(one) for one in outcome] == [CancelledError]
    assert (sated.data, sated.producer) == (DATA[: 2 * PIECE], None)


@pytest.mark.parametrize("reader", [FileReader, Cold])
def test_lost_connection(path: Path, reader: OpenReader) -> None:
    """A consumer that is gone from the start gets nothing, and no thread reads."""
    threads, gone = HeldThreads(), Gone()
    (error,) = watch(body_of(path, threads, reader).deliver(gone))
    assert isinstance(error, Unavailable)
    assert (gone.data, gone.producer, threads.held) == (b"", None, 0)


@pytest.mark.parametrize("reader", [FileReader, Cold])
@pytest.mark.parametrize("room", [1000, PIECE, SIZE, 2 * SIZE])
def test_sendfile(path: Path, reader: OpenReader, room: int) -> None:
    """A consumer that accepts files is sent ranges with back-pressure; bytes between them are written."""
    clock, recorder = Clock(), FileRecorder(room)
    parts = ContentRange(10, PIECE - 1, SIZE), ContentRange(5, SIZE - 7, SIZE)
    segments: list[bytes | ContentRange] = [b"<", parts[0], b"|", parts[1], b">"]
    outcome = watch(body_of(path, reader=reader, clock=clock, segments=segments).deliver(recorder))
    while recorder.producer is not None:
        recorder.resume()
        clock.advance(0)
    assert outcome == [None]
    assert recorder.data == b"<" + DATA[10:PIECE] + b"|" + DATA[5 : SIZE - 6] + b">"
    assert sum(recorder.sent) == len(recorder.data) - 3
    assert min(room, MEBIBYTE) <= max(recorder.sent) <= (MEBIBYTE if reader is Cold else room)


def test_reactor_gets_its_turn_during_sendfile(path: Path) -> None:
    """The reactor gets its turn after each mebibyte that is sent."""
    clock, recorder = Clock(), FileRecorder(4 * SIZE)
    segments = [ContentRange(0, last, SIZE) for last in (BURST - 2, BURST - 1, SIZE - 1)]
    outcome = watch(body_of(path, clock=clock, segments=segments).deliver(recorder))
    assert (recorder.sent, outcome) == ([BURST - 1, BURST], [])
    clock.advance(0)
    assert (recorder.sent, outcome) == ([BURST - 1, BURST, SIZE], [None])


def test_uncached_pages_are_loaded_before_sendfile(path: Path) -> None:
    """Only cached pages are sent; uncached ones are loaded in a thread, on demand."""
    threads, recorder = HeldThreads(), FileRecorder(1000)
    outcome = watch(delivery := body_of(path, threads, Cold).deliver(recorder))
    assert (recorder.sent, threads.held) == ([], 1)
    threads.run()
    assert (recorder.sent, threads.held) == ([1000], 0)
    recorder.resume()
    recorder.pause()
    threads.run()
    assert (recorder.sent, threads.held) == ([1000], 0)
    recorder.resume()
    assert recorder.sent == [1000, 1000]
    delivery.cancel()
    assert isinstance(outcome[0], CancelledError)


@pytest.mark.parametrize("length", [0, 1, PIECE, 3 * PIECE + 5])
@pytest.mark.parametrize("reader", [FileReader, Cold])
@pytest.mark.parametrize("consumer", [Recorder, partial(FileRecorder, 2 * SIZE)])
def test_truncated(path: Path, reader: OpenReader, length: int, consumer: MakeRecorder) -> None:
    """A truncated file fails the delivery after its last byte."""
    recorder = consumer()
    content = body_of(path, reader=reader)
    os.truncate(path, length)
    outcome = watch(content.deliver(recorder))
    if not outcome:
        recorder.resume()
    assert isinstance(outcome[0], Unavailable)
    assert (recorder.data, recorder.producer) == (DATA[:length], None)


def test_unreadable(path: Path) -> None:
    """A disk error fails the delivery, whether bytes are read or sent."""

    class Broken(Cold):
        async def read(self, offset: int, length: int) -> bytes:
            if offset:
                raise OSError(5, "Input/output error")
            return await super().read(offset, length)

    class BrokenConsumer(FileRecorder):
        def send_file(self, file: int, offset: int, length: int) -> int | None:
            raise OSError(5, "Input/output error")

    for recorder, reader, data in (
        (Recorder(), Broken, DATA[:PIECE]),
        (BrokenConsumer(SIZE), FileReader, b""),
    ):
        (error,) = watch(body_of(path, reader=reader).deliver(recorder))
        assert isinstance(error, Unavailable)
        assert isinstance(error.__cause__, OSError)
        assert (recorder.data, recorder.producer) == (data, None)


def test_sendable(path: Path) -> None:
    """Cached pages can be sent, and the file's end is no reason to wait."""
    reader = FileReader(os.open(path, os.O_RDONLY), inline)
    with cold_pages():
        cold = reader.sendable(0, SIZE)
    assert watch(reader.read(0, SIZE)) == [DATA]
    assert (reader.sendable(0, SIZE), reader.sendable(SIZE - 10, 100)) == (SIZE, 100)
    reader.close()
    assert (cold, reader.sendable(0, SIZE)) == (0, 0)


def test_probes_become_rarer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes of cached pages become rarer, and frequent again after an uncached one."""
    looks: list[int] = []
    missing = 40 * MEBIBYTE

    def preadv(_file: int, _buffers: object, offset: int, _flags: int) -> int:
        looks.append(offset + 1)
        if offset >= missing:
            raise BlockingIOError
        return 1

    monkeypatch.setattr(os, "preadv", preadv)
    reader = FileReader(os.open(path, os.O_RDONLY), inline)
    assert reader.sendable(0, 32 * MEBIBYTE) == 32 * MEBIBYTE
    assert [one * 8 // MEBIBYTE for one in looks] == [1, 3, 7, 15, 31, 63, 95, 127, 159, 191, 223, 255, 256]
    looks.clear()
    assert reader.sendable(39 * MEBIBYTE, 4 * MEBIBYTE) == MEBIBYTE
    assert looks[:2] == [43 * MEBIBYTE, 39 * MEBIBYTE + 128 * 1024]
    reader.close()


@pytest.mark.parametrize("is_evicted", [False, True])
def test_discarded_body_closes_its_file(path: Path, is_evicted: bool) -> None:
    """A discarded body closes its file; that of an evicted one in a thread, since it frees the bytes."""
    threads = HeldThreads()
    content = body_of(path, threads)
    if is_evicted:
        path.unlink()
    content.discard()
    assert threads.held == is_evicted
    if is_evicted:
        threads.run()


def test_closed_once(path: Path) -> None:
    """A closed reader reads and sends nothing, and is not closed again."""
    reader = FileReader(os.open(path, os.O_RDONLY), inline)
    reader.close()
    again = os.open(path, os.O_RDONLY)
    reader.close()
    assert reader.read_nowait(0, 10) is None
    assert isinstance(watch(reader.read(0, 10))[0], OSError)
    with pytest.raises(OSError, match="Bad file descriptor"):
        reader.send(lambda *_: 10, 0, 10)
    os.close(again)
