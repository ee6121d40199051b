"""A download's progress, and its readers: each at its own pace, up to where it may read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from dockmirror.body.verified import TAIL_HOLDBACK, CorruptContent
from dockmirror.oci.errors import Unavailable
from dockmirror.store.coroutine_producer import BURST
from dockmirror.store.downloads.progress import DownloadProgress, DownloadReader
from dockmirror.store.file_body import PIECE, FileReader

from ...answering import watch
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
    Mirror,
    Source,
    Upstream,
    leave_cold_part,
    open_files,
    part,
)


class Restless(Client):
    """A client that pauses and resumes whenever it is written to."""

    def write(self, data: bytes) -> None:
        super().write(data)
        self.pause()
        self.resume()


class Logging(Client):
    """A client that notes its turns among others'."""

    def __init__(self, turns: list[Client]) -> None:
        super().__init__()
        self._turns = turns

    def write(self, data: bytes) -> None:
        super().write(data)
        self._turns.append(self)


class Leaving(Client):
    """A client that leaves when it is written to."""

    def write(self, data: bytes) -> None:
        super().write(data)
        self.leave()


class Expelling(Client):
    """A client that makes another leave when it is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.other = Client()

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.other.outcome is None:
            self.other.leave()


class ColdFile(FileReader):
    """A file of which nothing is in the page cache."""

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        return None


class Failing(Client):
    """A client that fails when it is written to."""

    def write(self, data: bytes) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize("size", [0, 1, TAIL_HOLDBACK, TAIL_HOLDBACK + 1])
def test_a_blob_of_up_to_64_kib_is_delivered_when_it_is_right(tmp_path: Path, size: int) -> None:
    """Nothing of a blob of up to 64 KiB is delivered before its digest has proven right."""
    upstream, mirror = Upstream(DATA[:size]), Mirror(tmp_path, DATA[:size])
    client = mirror.read(Source(upstream))
    upstream.body.send()
    assert len(client.received) == max(0, size - TAIL_HOLDBACK)
    assert not client.outcome
    upstream.body.end()
    assert (client.received, client.outcome) == (DATA[:size], True)
    assert mirror.blob.read_bytes() == DATA[:size]


def test_a_blob_of_unknown_size_is_streamed(mirror: Mirror, upstream: Upstream) -> None:
    """A blob of unknown size is streamed; its readers learn the size at its end."""
    upstream.size = None
    downloads = [mirror.enter(Source(upstream)) for _ in range(2)]
    assert [reader.size for reader in downloads] == [None, None]
    assert downloads[0].seconds_until(part(0, 1)) == float("inf")
    clients = [Client().read(reader, DESCRIPTOR) for reader in downloads]
    upstream.body.send(HALF)
    mirror.turn(times=10)
    assert clients[0].received == clients[1].received == DATA[: HALF - TAIL_HOLDBACK]
    upstream.body.finish()
    mirror.turn(times=10)
    assert [client.received for client in clients] == [DATA, DATA]
    assert [client.outcome for client in clients] == [True, True]


def test_a_paused_reader_holds_up_nobody(mirror: Mirror, upstream: Upstream) -> None:
    """A paused reader holds up neither the upstream nor other readers, and misses nothing."""
    slow, fast = mirror.read(Source(upstream)), mirror.read(Source(upstream))
    upstream.body.send(1000)
    slow.pause()
    upstream.body.finish()
    mirror.turn(times=10)
    assert (slow.received, fast.received) == (DATA[:1000], DATA)
    assert mirror.blob.exists()
    slow.resume()
    mirror.turn(times=10)
    assert (slow.received, slow.outcome) == (DATA, True)
    assert slow.written_while_paused == 0


def test_a_paused_reader_is_given_nothing(mirror: Mirror, upstream: Upstream) -> None:
    """A reader that pauses after each piece is given one whenever it resumes; no timer runs meanwhile."""
    client = mirror.read(Source(upstream), client=Client(picky=True))
    upstream.body.finish()
    while client.outcome is None:
        assert mirror.clock.getDelayedCalls() == []
        client.resume()
    assert client.received == DATA
    assert max(client.pieces) <= PIECE
    assert client.written_while_paused == 0


def test_a_file_consumer_is_sent_the_file_behind_the_writer(mirror: Mirror, upstream: Upstream) -> None:
    """A file consumer is sent the bytes as they come, and the last ones when all is right."""
    client = FileClient()
    mirror.read(Source(upstream), client=client)
    upstream.body.send(1000)
    assert client.received == DATA[:1000]
    upstream.body.send()
    for _ in range(10):
        assert mirror.clock.getDelayedCalls() == []
        client.resume()
    assert client.received == DATA[: SIZE - TAIL_HOLDBACK]
    upstream.body.end()
    assert (client.received, client.sent, client.outcome) == (DATA, SIZE, True)
    assert client.written_while_paused == 0


def test_a_file_consumer_is_sent_a_part(mirror: Mirror, upstream: Upstream) -> None:
    """A file consumer is sent a part of the blob, and nothing else."""
    client = FileClient(room=SIZE)
    whole = mirror.read(Source(upstream))
    mirror.read(Source(upstream), part(HALF, HALF + 1000), client)
    upstream.body.send(HALF + 500)
    assert client.received == DATA[HALF : HALF + 500]
    upstream.body.finish()
    mirror.turn(times=10)
    assert (client.received, client.outcome) == (DATA[HALF : HALF + 1001], True)
    assert (whole.received, client.sent) == (DATA, 1001)


def test_a_consumer_may_pause_and_resume_while_it_is_written_to(mirror: Mirror, upstream: Upstream) -> None:
    """A consumer that pauses and resumes while it is written to gets everything in order."""
    client = mirror.read(Source(upstream), client=Restless())
    upstream.body.finish()
    mirror.turn(times=10)
    assert (client.received, client.outcome) == (DATA, True)


def test_readers_take_turns(tmp_path: Path) -> None:
    """Readers of what is there already are given a burst each in turn."""
    data = os.urandom(3 * BURST)
    upstream, mirror = Upstream(data), Mirror(tmp_path, data)
    turns: list[Client] = []
    clients = [mirror.read(Source(upstream), client=Logging(turns)) for _ in range(3)]
    for client in clients:
        client.pause()
    upstream.body.finish()
    for client in clients:
        client.resume()
    mirror.turn(times=3)
    assert [client.received == data for client in clients] == [True] * 3
    assert turns == [client for client in clients for _ in range(BURST // PIECE)] * 3


def test_a_reader_may_leave_while_it_is_written_to(mirror: Mirror, upstream: Upstream) -> None:
    """A reader may leave while it is written to; the others are given everything."""
    leaving = Leaving()
    mirror.read(Source(upstream), client=leaving)
    staying = mirror.read(Source(upstream))
    upstream.body.send(10)
    assert isinstance(leaving.outcome, CancelledError)
    upstream.body.finish()
    mirror.turn(times=10)
    assert (len(leaving.received), staying.received) == (10, DATA)


def test_a_reader_may_leave_while_another_is_written_to(mirror: Mirror, upstream: Upstream) -> None:
    """A reader that was about to be told of the same bytes may leave because of another."""
    expelling = Expelling()
    mirror.read(Source(upstream), client=expelling)
    mirror.read(Source(upstream), client=expelling.other)
    upstream.body.send(10)
    assert isinstance(expelling.other.outcome, CancelledError)
    upstream.body.finish()
    mirror.turn(times=10)
    assert (expelling.other.received, expelling.received) == (b"", DATA)


def test_a_paused_reader_is_cut_off_at_once(mirror: Mirror, upstream: Upstream) -> None:
    """A reader that takes nothing just now is told at once that the download has failed."""
    client = mirror.read(Source(upstream))
    upstream.body.send(10)
    client.pause()
    upstream.body.send_these(DATA)
    assert isinstance(client.outcome, CorruptContent)
    assert client.received == DATA[:10]


def test_a_paused_reader_without_bytes_is_given_the_second_file(mirror: Mirror, upstream: Upstream) -> None:
    """A reader that has taken nothing yet reads on when the download is restarted."""
    client = mirror.read(Source(upstream))
    client.pause()
    upstream.body.send_these(WRONG[:HALF])
    upstream.unsatisfied = True
    upstream.body.break_off()
    mirror.turn()
    client.resume()
    assert (client.received, upstream.opens) == (b"", [0, HALF, 0])
    upstream.body.finish()
    mirror.turn(times=10)
    assert (client.received, client.outcome) == (DATA, True)


def test_a_consumer_that_fails_ends_only_its_own_delivery(mirror: Mirror, upstream: Upstream) -> None:
    """A consumer that fails ends its own delivery; the download and its other readers go on."""
    failing, staying = mirror.read(Source(upstream), client=Failing()), mirror.read(Source(upstream))
    upstream.body.finish()
    mirror.turn(times=10)
    assert isinstance(failing.outcome, ZeroDivisionError)
    assert staying.received == DATA


def test_a_consumer_that_stops_its_producer_ends_the_delivery(mirror: Mirror, upstream: Upstream) -> None:
    """A consumer that stops its producer ends its delivery."""
    client = mirror.read(Source(upstream))
    upstream.body.send(HALF + 1)
    assert client.producer is not None
    client.producer.stopProducing()
    assert isinstance(client.outcome, Unavailable)
    upstream.body.finish()


def test_a_range_is_delivered_as_soon_as_it_has_come(mirror: Mirror, upstream: Upstream) -> None:
    """A range is delivered as soon as it has come, before the rest of the blob has."""
    whole = mirror.read(Source(upstream))
    ranged = mirror.read(Source(upstream), part(1000, 1999))
    late = mirror.read(Source(upstream), part(HALF, HALF))
    upstream.body.send(1500)
    assert (ranged.received, ranged.outcome) == (DATA[1000:1500], None)
    upstream.body.send(1000)
    assert (ranged.received, ranged.outcome) == (DATA[1000:2000], True)
    upstream.body.finish()
    mirror.turn(times=10)
    assert (late.received, late.outcome) == (DATA[HALF : HALF + 1], True)
    assert whole.received == DATA


def test_a_range_of_the_tail_waits_for_the_digest(mirror: Mirror, upstream: Upstream) -> None:
    """A range of the last 64 KiB is delivered when the whole blob is right."""
    client = mirror.read(Source(upstream), part(SIZE - TAIL_HOLDBACK - 10, SIZE - TAIL_HOLDBACK + 9))
    upstream.body.send()
    assert client.received == DATA[SIZE - TAIL_HOLDBACK - 10 : SIZE - TAIL_HOLDBACK]
    upstream.body.end()
    assert (client.received, client.outcome) == (
        DATA[SIZE - TAIL_HOLDBACK - 10 : SIZE - TAIL_HOLDBACK + 10],
        True,
    )


def test_the_time_until_a_part_comes_is_estimated_from_the_pace(mirror: Mirror, upstream: Upstream) -> None:
    """The time until a part may be read is estimated from the pace; the last 64 KiB come with the end."""
    reader = mirror.enter(Source(upstream))
    assert reader.seconds_until(part(0, 9)) == float("inf")
    mirror.turn(1)
    upstream.body.send(100000)
    assert reader.seconds_until(part(0, 99999)) == 0
    assert reader.seconds_until(part(0, 199999)) == 1
    assert reader.seconds_until(part(SIZE - TAIL_HOLDBACK, SIZE - TAIL_HOLDBACK)) == 9
    upstream.body.send()
    assert reader.seconds_until(part(0, SIZE - 1)) == 0
    upstream.body.end()
    assert reader.seconds_until(part(0, SIZE - 1)) == 0
    reader.leave()


def test_a_content_that_is_discarded_is_a_reader_who_leaves(mirror: Mirror, upstream: Upstream) -> None:
    """A content that is discarded is a reader who leaves: the download stops."""
    mirror.enter(Source(upstream)).content(DESCRIPTOR, None).discard()
    assert upstream.body.cancelled
    assert not mirror.is_downloading


def test_only_waiting_readers_are_told_of_changes(mirror: Mirror) -> None:
    """A reader who is busy is told nothing, however much comes."""
    progress = DownloadProgress(mirror.clock, lambda: None)
    first, slow = watch(progress.change()), watch(progress.change())
    progress.grew(10)
    assert (first, slow) == ([None], [None])
    second = watch(progress.change())
    progress.grew(20)
    progress.grew(30)
    assert (first, slow, second) == ([None], [None], [None])


def test_a_known_size_is_not_forgotten(mirror: Mirror) -> None:
    """A later answer without a size says nothing new."""
    progress = DownloadProgress(mirror.clock, lambda: None)
    progress.answered(SIZE)
    change = watch(progress.change())
    progress.answered(None)
    assert (progress.size, change) == (SIZE, [])


def test_cold_bytes_are_read_in_a_thread(tmp_path: Path, upstream: Upstream) -> None:
    """Bytes that are not in the page cache are read in a thread; a reader may pause or leave meanwhile."""
    (tmp_path / "file").write_bytes(DATA[:HALF])
    threads, progress = HeldThreads(), DownloadProgress(Clock(), lambda: None)
    progress.opened(ColdFile(os.open(tmp_path / "file", os.O_RDONLY), threads), HALF)
    progress.answered(SIZE)
    readers = [DownloadReader(progress, BUSYBOX, Source(upstream), False) for _ in range(3)]
    for reader in readers:
        progress.add(reader)
    clients = [Client().read(reader, DESCRIPTOR) for reader in readers]
    clients[0].leave()
    clients[1].pause()
    for _ in range(3):
        threads.run()
    assert [client.received for client in clients] == [b"", b"", DATA[:PIECE]]
    clients[1].resume()
    while threads.held:
        threads.run()
    assert clients[1].received == clients[2].received == DATA[:HALF]
    progress.ended(Unavailable(), None)
    assert open_files(tmp_path) == []


def test_a_reader_is_cut_off_when_the_disk_gives_nothing(mirror: Mirror, upstream: Upstream) -> None:
    """A reader is told that the blob is unavailable when the disk does not give its bytes."""
    leave_cold_part(mirror)
    opening = mirror.hold_threads()
    joining = mirror.join(Source(upstream))
    hashing = mirror.hold_threads()
    opening.callback(None)
    assert joining.reader is not None
    reading = mirror.hold_threads()
    client = Client().read(joining.reader, DESCRIPTOR)
    reading.errback(OSError("input/output error"))
    assert isinstance(client.outcome, Unavailable)
    hashing.callback(None)


def test_a_file_stays_open_while_a_thread_reads_it(mirror: Mirror, upstream: Upstream) -> None:
    """A file stays open while a thread reads from it, although all readers have left."""
    leave_cold_part(mirror)
    opening = mirror.hold_threads()
    joining = mirror.join(Source(upstream))
    hashing = mirror.hold_threads()
    opening.callback(None)
    assert joining.reader is not None
    reading = mirror.hold_threads()
    client = Client().read(joining.reader, DESCRIPTOR)
    client.leave()
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
    upstream.body.send(HALF)
    os.truncate(mirror.part, 10)
    client.resume()
    assert isinstance(client.outcome, Unavailable)
    upstream.body.break_off()
