"""A download's progress, and its readers: each at its own pace, up to where it may read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from dockmirror.body.bodies import TAIL_HOLDBACK, CorruptContent
from dockmirror.body.consumers import BURST
from dockmirror.oci.consent import SAMPLE
from dockmirror.oci.errors import RangeInvalid, Unavailable
from dockmirror.oci.header_fields import ContentRange, Span
from dockmirror.store.downloads.progress import DownloadProgress, DownloadReader
from dockmirror.store.file_body import PIECE, FileReader

from ...answering import now, watch
from ..threads import HeldThreads
from .upstream import (
    BUSYBOX,
    DATA,
    DESCRIPTOR,
    HALF,
    SIZE,
    WRONG,
    Client,
    FileClient,
    HeldCheck,
    Joining,
    Mirror,
    Source,
    Upstream,
    finish,
    full,
    join_cold,
    open_files,
    part,
)


class Reacting(Client):
    """A client that does something whenever it is written to."""

    def __init__(self, react: Callable[[Client], object]) -> None:
        super().__init__()
        self._react = react

    def write(self, data: bytes) -> None:
        super().write(data)
        self._react(self)


class ColdFile(FileReader):
    """A file of which nothing is in the page cache."""

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        return None


@pytest.mark.parametrize("size", [0, 1, TAIL_HOLDBACK, TAIL_HOLDBACK + 1])
def test_a_blob_of_up_to_64_kib_is_delivered_when_it_is_right(tmp_path: Path, size: int) -> None:
    """Nothing of a blob of up to 64 KiB is delivered before its digest has proven right."""
    upstream, mirror = Upstream(DATA[:size]), Mirror(tmp_path, DATA[:size])
    client = mirror.read(Source(upstream))
    upstream.body.advance()
    assert len(client.data) == max(0, size - TAIL_HOLDBACK)
    assert not client.outcome
    upstream.body.end()
    assert (client.data, client.outcome) == (DATA[:size], True)
    assert mirror.blob.read_bytes() == DATA[:size]


def test_a_blob_of_unknown_size_is_streamed(mirror: Mirror, upstream: Upstream) -> None:
    """A blob of unknown size is streamed; its readers learn the size at its end."""
    upstream.size = None
    downloads = [mirror.enter(Source(upstream)) for _ in range(2)]
    assert [reader.size for reader in downloads] == [None, None]
    assert mirror.enter(Source(upstream)).choose_part(Span(0, 1)) is None
    clients = [Client().read(reader, DESCRIPTOR) for reader in downloads]
    upstream.body.advance(HALF)
    mirror.turn(times=10)
    assert clients[0].data == clients[1].data == DATA[: HALF - TAIL_HOLDBACK]
    finish(upstream, mirror)
    assert [client.data for client in clients] == [DATA, DATA]
    assert [client.outcome for client in clients] == [True, True]


def test_a_paused_reader_is_given_nothing(mirror: Mirror, upstream: Upstream) -> None:
    """A reader that pauses after each piece is given one whenever it resumes, and holds up nobody."""
    client, fast = mirror.read(Source(upstream), client=Client(picky=True)), mirror.read(Source(upstream))
    upstream.body.finish()
    mirror.turn(times=10)
    assert (fast.data, mirror.blob.exists(), client.outcome) == (DATA, True, None)
    while client.outcome is None:
        assert mirror.clock.getDelayedCalls() == []
        client.resume()
    assert client.data == DATA
    assert max(map(len, client.pieces)) <= PIECE
    assert client.written_while_paused == 0


def test_a_file_consumer_is_sent_the_file_behind_the_writer(mirror: Mirror, upstream: Upstream) -> None:
    """A file consumer is sent the bytes as they come, and the last ones when all is right."""
    client = FileClient()
    mirror.read(Source(upstream), client=client)
    upstream.body.advance(1000)
    assert client.data == DATA[:1000]
    upstream.body.advance()
    for _ in range(10):
        assert mirror.clock.getDelayedCalls() == []
        client.resume()
    assert client.data == DATA[: SIZE - TAIL_HOLDBACK]
    upstream.body.end()
    assert (client.data, sum(client.sent), client.outcome) == (DATA, SIZE, True)
    assert client.written_while_paused == 0


def test_a_file_consumer_is_sent_a_part(mirror: Mirror, upstream: Upstream) -> None:
    """A file consumer is sent a part of the blob, and nothing else."""
    client = FileClient(room=SIZE)
    whole = mirror.read(Source(upstream))
    mirror.read(Source(upstream), part(HALF, HALF + 1000), client)
    upstream.body.advance(HALF + 500)
    assert client.data == DATA[HALF : HALF + 500]
    finish(upstream, mirror)
    assert (client.data, client.outcome) == (DATA[HALF : HALF + 1001], True)
    assert (whole.data, sum(client.sent)) == (DATA, 1001)


def test_a_consumer_may_pause_and_resume_while_it_is_written_to(mirror: Mirror, upstream: Upstream) -> None:
    """A consumer that pauses and resumes while it is written to gets everything in order."""

    def react(client: Client) -> None:
        client.pause()
        client.resume()

    client = mirror.read(Source(upstream), client=Reacting(react))
    finish(upstream, mirror)
    assert (client.data, client.outcome) == (DATA, True)


def test_readers_take_turns(tmp_path: Path) -> None:
    """Readers of what is there already are given a burst each in turn."""
    data = os.urandom(3 * BURST)
    upstream, mirror = Upstream(data), Mirror(tmp_path, data)
    turns: list[Client] = []
    clients = [mirror.read(Source(upstream), client=Reacting(turns.append)) for _ in range(3)]
    for client in clients:
        client.pause()
    upstream.body.finish()
    for client in clients:
        client.resume()
    mirror.turn(times=3)
    assert [client.data == data for client in clients] == [True] * 3
    assert turns == [client for client in clients for _ in range(BURST // PIECE)] * 3


def test_a_reader_may_leave_while_it_or_another_is_written_to(mirror: Mirror, upstream: Upstream) -> None:
    """A reader may leave while it is written to, or another that waits for the same bytes."""
    other = Client()
    leaving = mirror.read(Source(upstream), client=Reacting(Client.leave))
    staying = mirror.read(
        Source(upstream), client=Reacting(lambda _: None if other.outcome else other.leave())
    )
    mirror.read(Source(upstream), client=other)
    upstream.body.advance(10)
    assert [type(client.outcome) for client in (leaving, other)] == [CancelledError] * 2
    finish(upstream, mirror)
    assert (len(leaving.data), other.data, staying.data) == (10, b"", DATA)


def test_a_paused_reader_is_cut_off_at_once(mirror: Mirror, upstream: Upstream) -> None:
    """A reader that takes nothing just now is told at once that the download has failed."""
    client = mirror.read(Source(upstream))
    upstream.body.advance(10)
    client.pause()
    upstream.body.send_these(DATA)
    assert isinstance(client.outcome, CorruptContent)
    assert client.data == DATA[:10]


def test_a_paused_reader_without_bytes_is_given_the_second_file(mirror: Mirror, upstream: Upstream) -> None:
    """A reader that has taken nothing yet reads on when the download is restarted."""
    client = mirror.read(Source(upstream))
    client.pause()
    upstream.body.send_these(WRONG[:HALF])
    upstream.unsatisfied = True
    upstream.body.break_off()
    mirror.turn()
    client.resume()
    assert (client.data, upstream.opens) == (b"", [0, HALF, 0])
    finish(upstream, mirror)
    assert (client.data, client.outcome) == (DATA, True)


def test_a_consumer_that_fails_ends_only_its_own_delivery(mirror: Mirror, upstream: Upstream) -> None:
    """A consumer that fails, or stops its producer, ends its own delivery; other readers go on."""
    failing = mirror.read(Source(upstream), client=Reacting(lambda _: 1 / 0))
    stopping, staying = mirror.read(Source(upstream)), mirror.read(Source(upstream))
    assert stopping.producer is not None
    stopping.producer.stopProducing()
    finish(upstream, mirror)
    assert isinstance(failing.outcome, ZeroDivisionError)
    assert isinstance(stopping.outcome, Unavailable)
    assert staying.data == DATA


def test_a_range_is_delivered_as_soon_as_it_has_come(mirror: Mirror, upstream: Upstream) -> None:
    """A range is delivered as soon as it has come; one of the last 64 KiB when the whole blob is right."""
    tail = SIZE - TAIL_HOLDBACK
    ranged = mirror.read(Source(upstream), part(1000, 1999))
    late = mirror.read(Source(upstream), part(tail - 10, tail + 9))
    upstream.body.advance(1500)
    assert (ranged.data, ranged.outcome) == (DATA[1000:1500], None)
    upstream.body.advance(1000)
    assert (ranged.data, ranged.outcome) == (DATA[1000:2000], True)
    upstream.body.advance()
    assert late.data == DATA[tail - 10 : tail]
    upstream.body.end()
    assert (late.data, late.outcome) == (DATA[tail - 10 : tail + 10], True)


def test_whether_a_part_comes_soon_is_estimated_from_the_pace(mirror: Mirror, upstream: Upstream) -> None:
    """A reader of a part whose first byte takes longer than 5 s leaves; the last 64 KiB come with the end."""
    last = SIZE - 1
    entered = [mirror.enter(Source(upstream)) for _ in range(8)]
    readers = iter(entered)
    assert next(readers).choose_part(Span(0, 9)) == part(0, 9)
    assert next(readers).choose_part(Span(1, 9)) is None
    mirror.turn(1)
    upstream.body.advance(100_000)
    assert next(readers).choose_part(Span(599_999)) == part(599_999, last)
    assert next(readers).choose_part(Span(600_000)) is None
    assert next(readers).choose_part(Span(None, suffix=1)) is None
    with pytest.raises(RangeInvalid):
        next(readers).choose_part(Span(SIZE))
    upstream.body.advance()
    assert next(readers).choose_part(Span(None, suffix=1)) == part(last, last)
    upstream.body.end()
    assert next(readers).choose_part(Span(None, suffix=1)) == part(last, last)
    for reader in entered:
        reader.leave()


def test_a_content_that_is_discarded_is_a_reader_who_leaves(mirror: Mirror, upstream: Upstream) -> None:
    """A content that is discarded is a reader who leaves: the download stops."""
    mirror.enter(Source(upstream)).content(DESCRIPTOR, None).discard()
    assert upstream.body.cancelled
    assert not mirror.is_downloading


def test_only_waiting_readers_are_told_of_changes(mirror: Mirror) -> None:
    """A change is reported once to each who waits; a later answer without a size is none."""
    progress = DownloadProgress(mirror.clock, lambda: None)
    waiting = [watch(progress.change()) for _ in range(2)]
    progress.set_size(SIZE)
    assert waiting == [[None], [None]]
    change = watch(progress.change())
    progress.set_size(None)
    assert (progress.size, change) == (SIZE, [])
    progress.set_length(20)
    progress.set_length(30)
    assert (change, waiting) == ([None], [[None], [None]])


def test_cold_bytes_are_read_in_a_thread(tmp_path: Path, upstream: Upstream) -> None:
    """Bytes that are not in the page cache are read in a thread; a reader may pause or leave meanwhile."""
    (tmp_path / "file").write_bytes(DATA[:HALF])
    threads, progress = HeldThreads(), DownloadProgress(Clock(), lambda: None)
    progress.set_file(ColdFile(os.open(tmp_path / "file", os.O_RDONLY), threads), HALF)
    progress.set_size(SIZE)
    readers = [DownloadReader(progress, BUSYBOX, Source(upstream), False) for _ in range(3)]
    for reader in readers:
        progress.add(reader)
    clients = [Client().read(reader, DESCRIPTOR) for reader in readers]
    clients[0].leave()
    clients[1].pause()
    for _ in range(3):
        threads.run()
    assert [client.data for client in clients] == [b"", b"", DATA[:PIECE]]
    clients[1].resume()
    while threads.held:
        threads.run()
    assert clients[1].data == clients[2].data == DATA[:HALF]
    progress.end(Unavailable(), None)
    assert open_files(tmp_path) == []


@pytest.mark.usefixtures("cold")
def test_a_reader_is_cut_off_when_the_disk_gives_nothing(mirror: Mirror, upstream: Upstream) -> None:
    """A reader is told that the blob is unavailable when the disk does not give its bytes."""
    reader, hashing = join_cold(mirror, upstream)
    reading = mirror.hold_threads()
    client = Client().read(reader, DESCRIPTOR)
    reading.errback(OSError("input/output error"))
    assert isinstance(client.outcome, Unavailable)
    hashing.callback(None)


@pytest.mark.usefixtures("cold")
def test_a_file_stays_open_while_a_thread_reads_it(mirror: Mirror, upstream: Upstream) -> None:
    """A file stays open while a thread reads from it, although all readers have left."""
    reader, hashing = join_cold(mirror, upstream)
    reading = mirror.hold_threads()
    Client().read(reader, DESCRIPTOR).leave()
    assert mirror.is_downloading
    hashing.callback(None)
    assert not mirror.is_downloading
    assert len(open_files(mirror.root)) == 1
    reading.callback(None)
    assert open_files(mirror.root) == []


@pytest.mark.parametrize("client", [Client(picky=True), FileClient(1000)])
def test_a_file_that_is_cut_short_ends_no_blob(mirror: Mirror, upstream: Upstream, client: Client) -> None:
    """A reader of a file that somebody has truncated fails."""
    mirror.read(Source(upstream), client=client)
    upstream.body.advance(HALF)
    os.truncate(mirror.part, 10)
    client.resume()
    assert isinstance(client.outcome, Unavailable)
    upstream.body.break_off()


LATE = ContentRange(SIZE - SAMPLE, SIZE - 1, SIZE)


async def read_part(source: HeldCheck, part: ContentRange = LATE) -> bytes | None:
    """Read a part of the blob that is checked, as if it were the sample."""
    return await source.held.read(part)


@pytest.fixture
def source(upstream: Upstream) -> HeldCheck:
    """The source of a client that joins."""
    return HeldCheck(upstream)


@pytest.fixture
def joining(mirror: Mirror, upstream: Upstream, source: HeldCheck) -> Joining:
    """A client that joins a download of which half has come."""
    mirror.read(Source(upstream))
    upstream.body.advance(HALF)
    return mirror.join(source)


def test_a_sample_waits_until_it_has_come(
    mirror: Mirror, upstream: Upstream, source: HeldCheck, joining: Joining
) -> None:
    """A part that has arrived is read at once."""
    assert now(read_part(source, ContentRange(10, 73, SIZE))) == DATA[10:74]
    sampled = watch(read_part(source))
    assert (sampled, source.held.size) == ([], SIZE)
    finish(upstream, mirror)
    assert sampled == [DATA[-SAMPLE:]]
    source.answer.callback(None)
    joining.reader.leave()


def test_the_wait_for_a_sample_may_end(upstream: Upstream, source: HeldCheck, joining: Joining) -> None:
    """A cancelled wait ends at once, and the client stays; a client that leaves is given no sample."""
    sampling = Deferred.fromCoroutine(read_part(source))
    cancelled, sampled = watch(sampling), watch(read_part(source))
    sampling.cancel()
    assert isinstance(cancelled[0], CancelledError)
    assert (joining.error, sampled) == (None, [])
    joining.cancel()
    assert sampled == [None]
    assert now(read_part(source)) is None
    upstream.body.finish()


@pytest.mark.parametrize("is_full", [True, False])
def test_the_wait_for_a_sample_ends_with_the_download(
    mirror: Mirror, upstream: Upstream, source: HeldCheck, joining: Joining, is_full: bool
) -> None:
    """There is no sample if the disk is full; a download that fails fails the wait, too."""
    sampled = watch(read_part(source))
    if is_full:
        with full(HALF):
            upstream.body.advance()
        mirror.turn(times=10)
        assert sampled == [None]
        joining.cancel()
        finish(upstream, mirror)
    else:
        upstream.body.send_these(DATA[HALF:-1]).end()
        mirror.turn(times=10)
        source.answer.callback(None)
        assert [type(sampled[0]), type(joining.error)] == [CorruptContent] * 2


def test_of_a_blob_of_unknown_size_there_is_no_sample(mirror: Mirror, upstream: Upstream) -> None:
    """The size is a part of the proof."""
    upstream.size = None
    mirror.read(Source(upstream))
    source = HeldCheck(upstream)
    joining = mirror.join(source)
    assert source.held.size is None
    assert source.held.part is None
    joining.cancel()
    finish(upstream, mirror)
