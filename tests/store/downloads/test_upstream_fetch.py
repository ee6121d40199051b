"""The fetch of a download, from an upstream that breaks off, refuses, or lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.internet.defer import CancelledError, Deferred

from dockmirror.body.bodies import PAUSES, CorruptContent, NoBody
from dockmirror.concurrency.coroutines import Interrupt
from dockmirror.interfaces import Answer
from dockmirror.oci.digest import Descriptor
from dockmirror.oci.errors import (
    Denied,
    RangeInvalid,
    RegistryError,
    TimedOut,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from dockmirror.store.downloads.context import DownloadStats, NoReaders
from dockmirror.store.downloads.partial_file import PartialPaths, open_partial
from dockmirror.store.downloads.progress import DownloadProgress
from dockmirror.store.downloads.upstream_fetch import MAX_BACKLOG, IngestConsumer
from dockmirror.store.file_body import FileReader
from dockmirror.store.writer import HASH_STEP, BackgroundHasher

from ..threads import inline
from .upstream import (
    ALPINE,
    BUSYBOX,
    DATA,
    DESCRIPTOR,
    HALF,
    PIECE,
    SIZE,
    WRONG,
    Client,
    FileClient,
    HeldCheck,
    Mirror,
    Source,
    Upstream,
    all_closed,
    finish,
    full,
    join_cold,
    leave_part,
    part,
)


class AnsweredSource(Source):
    """A source that is given this answer when the upstream opens."""

    def __init__(self, upstream: Upstream, answer: Answer) -> None:
        super().__init__(upstream)
        self._opening = upstream
        self._answer = answer

    async def open(self, offset: int) -> Answer:
        assert self._opening.opening is not None
        await self._opening.opening
        return self._answer


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_is_resumed_where_it_broke_off(mirror: Mirror, upstream: Upstream, ranges: bool) -> None:
    """A download is resumed where it broke off, however often, unless all bytes have come.

    No byte is requested twice; an upstream without ranges sends the whole blob again.
    """
    upstream.ranges = ranges
    clients = [mirror.read(Source(upstream)) for _ in range(2)]
    for count in (1, 1000, HALF):
        upstream.body.advance(upstream.opens[-1] - upstream.body.offset + count).break_off()
        mirror.turn(4)
    upstream.body.advance().break_off()
    mirror.turn(times=10)
    assert [client.data for client in clients] == [DATA, DATA]
    assert [client.outcome for client in clients] == [True, True]
    assert (upstream.opens, mirror.blob.read_bytes()) == ([0, 1, 1001, 1001 + HALF], DATA)
    assert (upstream.sent == SIZE) == ranges
    assert mirror.context.stats == DownloadStats(kept=1, resumed=3)


def test_pauses_between_attempts_grow_until_the_download_fails(mirror: Mirror, upstream: Upstream) -> None:
    """After five more attempts all readers fail; the partial file is kept."""
    clients = [mirror.read(Source(upstream)) for _ in range(2)]
    upstream.body.advance(1000)
    upstream.down = True
    upstream.body.break_off()
    for attempts, pause in enumerate(PAUSES, 1):
        assert len(upstream.opens) == attempts
        mirror.turn(pause * 0.9)
        assert len(upstream.opens) == attempts + (pause == 0)
        mirror.turn(pause * 0.2)
    assert upstream.opens == [0] + [1000] * 5
    assert [type(client.outcome) for client in clients] == [Unreachable] * 2
    assert mirror.part.read_bytes() == DATA[:1000]
    assert not mirror.is_downloading


@pytest.mark.parametrize("breaks_first", [False, True])
def test_a_download_without_readers_stops(mirror: Mirror, upstream: Upstream, breaks_first: bool) -> None:
    """A download without readers has no credentials to be resumed with; no timer is left."""
    client = mirror.read(Source(upstream))
    steps = [client.leave, upstream.body.advance(HALF).break_off]
    for step in reversed(steps) if breaks_first else steps:
        step()
    assert (mirror.clock.getDelayedCalls(), mirror.is_downloading) == ([], False)
    assert (upstream.opens, len(mirror.part.read_bytes())) == ([0], HALF)


@pytest.mark.parametrize("is_refused", [False, True])
def test_the_next_reader_requests_the_rest(mirror: Mirror, upstream: Upstream, is_refused: bool) -> None:
    """When the first reader has left, or is refused, the rest is requested with the next one's source."""
    sources = [Source(upstream), Source(upstream)]
    first, second = [mirror.read(source) for source in sources]
    upstream.body.advance(HALF)
    if is_refused:
        sources[0].refusal = Unauthorized()
    else:
        first.leave()
    upstream.body.break_off()
    mirror.turn()
    assert type(first.outcome) is (Unauthorized if is_refused else CancelledError)
    finish(upstream, mirror)
    assert (second.data, second.outcome, upstream.opens) == (DATA, True, [0, HALF])
    assert [source.opens for source in sources] == [1 + is_refused, 1]


@pytest.mark.parametrize("error", [TooManyRequests(), Unavailable(status=503), TimedOut(), Denied()])
def test_only_429_5xx_and_timeouts_are_retried(
    mirror: Mirror, upstream: Upstream, error: RegistryError
) -> None:
    """Another refusal of the rest fails the reader; the partial file is kept for others."""
    client = mirror.read(source := Source(upstream))
    upstream.body.advance(HALF)
    source.refusal = error
    upstream.body.break_off()
    mirror.turn()
    source.refusal = None
    mirror.turn(1.0, times=5)
    if isinstance(error, Denied):
        assert (client.outcome, mirror.is_downloading) == (error, False)
        assert mirror.part.read_bytes() == DATA[:HALF]
    else:
        finish(upstream, mirror)
        assert (client.data, client.outcome) == (DATA, True)


def test_the_next_reader_begins_when_the_first_is_refused(mirror: Mirror, upstream: Upstream) -> None:
    """When the first reader is refused, or given no blob, the next one's source begins without a check."""
    refused, answer = Source(upstream, Denied()), Answer(NoBody(Descriptor()), 304, upstream_status=304)
    upstream.opening = Deferred()
    joinings = [mirror.join(AnsweredSource(upstream, answer)), mirror.join(refused)]
    joinings.append(mirror.join(Source(upstream), ALPINE))
    upstream.opening.callback(None)
    assert [type(joining.error) for joining in joinings] == [Unavailable, Denied, type(None)]
    client = Client().read(joinings[2].reader, DESCRIPTOR)
    finish(upstream, mirror)
    assert (client.data, upstream.checks, mirror.contents.linked) == (DATA, 0, [ALPINE])


def test_bytes_that_are_there_are_not_given_with_an_answer_of_unknown_size(
    mirror: Mirror, upstream: Upstream
) -> None:
    """It may be anything, so that the reader's check decides."""
    leave_part(mirror, DATA[:HALF], f"{SIZE}\n")
    upstream.size, upstream.ranges = None, False
    source = HeldCheck(upstream)
    joining = mirror.join(source)
    mirror.turn()
    assert (upstream.opens, joining.is_admitted) == ([HALF], False)
    source.refusal = Denied()
    source.answer.callback(None)
    assert isinstance(joining.error, Denied)
    finish(upstream, mirror)
    assert mirror.contents.linked == []


def test_an_answer_without_a_byte_is_no_consent(mirror: Mirror, upstream: Upstream) -> None:
    """The blob is not linked to the repository of a reader that has left before one came."""
    first = Client().read(mirror.enter(Source(upstream), ALPINE), DESCRIPTOR)
    other = mirror.read(Source(upstream))
    first.leave()
    upstream.body.break_off()
    mirror.turn(1.0, times=5)
    finish(upstream, mirror)
    assert (other.data, mirror.contents.linked) == (DATA, [BUSYBOX])


def test_an_upstream_that_does_not_answer_is_not_asked_again(mirror: Mirror, upstream: Upstream) -> None:
    """An upstream that does not answer the first request is not asked again: the client is told at once."""
    upstream.down = True
    joining = mirror.join(Source(upstream))
    assert isinstance(joining.error, Unreachable)
    assert (upstream.opens, os.listdir(mirror.part.parent)) == ([0], [])
    assert mirror.context.stats == DownloadStats(failed=1)


@pytest.mark.parametrize(("lie", "value"), [("shift", 7), ("unsatisfied", True), ("rest_size", SIZE + 7)])
def test_a_download_is_restarted(mirror: Mirror, upstream: Upstream, lie: str, value: object) -> None:
    """Readers who were given bytes of the first file fail; the others are given the second."""
    client, late = mirror.read(Source(upstream)), mirror.read(Source(upstream), part(HALF + 1, HALF + 9))
    upstream.body.advance(HALF)
    setattr(upstream, lie, value)
    upstream.body.break_off()
    mirror.turn()
    assert isinstance(client.outcome, Unavailable | RangeInvalid)
    assert (upstream.opens, late.outcome) == ([0, HALF, 0], None)
    assert all(body.discarded for body in upstream.bodies[1:-1])
    finish(upstream, mirror)
    assert (late.data, late.outcome) == (DATA[HALF + 1 : HALF + 10], True)
    assert mirror.blob.read_bytes() == DATA


def test_restarts_are_limited(mirror: Mirror, upstream: Upstream) -> None:
    """An upstream that always breaks off, and never resumes, is given up."""
    upstream.unsatisfied = True
    late = mirror.read(Source(upstream), part(SIZE - 9, SIZE - 1))
    for _ in range(20):
        if upstream.running:
            upstream.body.advance(HALF).break_off()
        mirror.turn(4)
    assert isinstance(late.outcome, Unavailable | RangeInvalid)
    assert len(upstream.opens) < 10


@pytest.mark.parametrize("is_wrong_again", [False, True])
def test_a_wrong_blob_of_several_parts_is_fetched_again(
    mirror: Mirror, upstream: Upstream, log: list[str], is_wrong_again: bool
) -> None:
    """A blob that came in parts and is wrong is fetched once from its start before the registry is blamed."""
    client, late = mirror.read(Source(upstream)), mirror.read(Source(upstream), part(SIZE - 9, SIZE - 1))
    upstream.body.send_these(WRONG[:HALF]).break_off()
    mirror.turn()
    upstream.body.finish()
    assert type(client.outcome) is Unavailable
    assert (upstream.opens, log) == ([0, HALF, 0], [])
    if is_wrong_again:
        upstream.body.send_these(WRONG[:HALF]).break_off()
        mirror.turn(4)
    finish(upstream, mirror)
    if is_wrong_again:
        assert isinstance(late.outcome, CorruptContent)
        assert (len(log), mirror.part.exists(), mirror.blob.exists()) == (1, False, False)
    else:
        assert (late.data, late.outcome, mirror.blob.read_bytes()) == (DATA[-9:], True, DATA)


def test_a_reader_that_was_told_another_size_fails(mirror: Mirror, upstream: Upstream) -> None:
    """When the upstream gives another size after a restart, readers who were told the first one fail."""
    late = mirror.read(Source(upstream), part(SIZE - 9, SIZE - 1))
    upstream.body.send_these(WRONG[:HALF]).break_off()
    mirror.turn()
    upstream.size = SIZE + 1
    upstream.body.finish()
    assert isinstance(late.outcome, Unavailable)
    assert upstream.body.discarded
    assert not mirror.is_downloading


@pytest.mark.parametrize(
    "metadata", [None, f"{SIZE}\n", f"{SIZE}", "-\n", f"{SIZE}\nverified {SIZE}\n", "x\n"]
)
def test_a_file_of_a_killed_process_is_continued(
    mirror: Mirror, upstream: Upstream, metadata: str | None
) -> None:
    """The partial file of a killed process is continued from its length, with any metadata."""
    leave_part(mirror, DATA[:HALF], metadata)
    client = mirror.read(Source(upstream))
    finish(upstream, mirror)
    assert (client.data, client.outcome) == (DATA, True)
    assert (upstream.opens, upstream.sent) == ([HALF], SIZE - HALF)
    assert mirror.blob.read_bytes() == DATA
    assert os.listdir(mirror.part.parent) == []


def test_bytes_of_a_partial_file_are_delivered_at_once(mirror: Mirror, upstream: Upstream) -> None:
    """Bytes that are there are delivered at once, to clients to whom the upstream grants the blob."""
    leave_part(mirror, DATA[:HALF], f"{SIZE}\n")
    upstream.opening = Deferred()
    refused = mirror.join(Source(upstream, Denied()))
    assert isinstance(refused.error, Denied)
    source = Source(upstream)
    client = mirror.read(source)
    mirror.turn(times=10)
    assert (client.data, source.checks) == (DATA[:HALF], 1)
    client.leave()
    assert len(mirror.part.read_bytes()) == HALF


def test_a_partial_file_that_is_complete_needs_no_request(mirror: Mirror, upstream: Upstream) -> None:
    """A partial file that is complete needs no request: the client is checked, and the blob is stored."""
    leave_part(mirror, DATA)
    reader = mirror.enter(Source(upstream))
    assert reader.size == SIZE
    client = Client().read(reader, DESCRIPTOR)
    mirror.turn(times=10)
    assert (client.data, client.outcome) == (DATA, True)
    assert (upstream.opens, upstream.checks) == ([], 1)
    assert mirror.contents.linked == [BUSYBOX]


@pytest.mark.parametrize("metadata", [None, f"{SIZE}\n"])
@pytest.mark.parametrize("length", [HALF, SIZE, SIZE + 1])
def test_a_wrong_partial_file_is_replaced(
    mirror: Mirror, upstream: Upstream, log: list[str], length: int, metadata: str | None
) -> None:
    """A partial file that is wrong or too long is replaced by a new download, and nobody is blamed."""
    leave_part(mirror, (WRONG + b"x")[:length], metadata)
    late = mirror.read(Source(upstream), part(SIZE - 9, SIZE - 1))
    finish(upstream, mirror)
    assert (late.data, late.outcome, mirror.blob.read_bytes()) == (DATA[-9:], True, DATA)
    assert (upstream.opens[-1], log) == (0, [])


def test_readers_of_a_wrong_partial_file_are_cut_off(mirror: Mirror, upstream: Upstream) -> None:
    """Readers who have bytes of a wrong partial file are cut off, and not completed from the right one."""
    leave_part(mirror, WRONG[:HALF], f"{SIZE}\n")
    client = mirror.read(Source(upstream))
    mirror.turn(times=10)
    upstream.body.finish()
    assert client.data.startswith(WRONG[:HALF])
    assert isinstance(client.outcome, Unavailable)
    assert not mirror.is_downloading


@pytest.mark.parametrize("partial", [b"", DATA[:HALF]], ids=["new", "continued"])
def test_a_download_stops_if_its_reader_leaves_at_once(
    mirror: Mirror, upstream: Upstream, partial: bytes
) -> None:
    """A response is discarded, or a partial file not hashed, if the reader leaves when it is admitted."""
    leave_part(mirror, partial, f"{SIZE}\n" if partial else None)
    opening = mirror.hold_threads()
    mirror.join(Source(upstream)).once(lambda reader: reader.leave())
    opening.callback(None)
    assert [body.discarded for body in upstream.bodies] == ([] if partial else [True])
    assert not mirror.is_downloading


def test_a_join_fails_when_the_size_cannot_be_written(mirror: Mirror, upstream: Upstream) -> None:
    """A join fails when the size cannot be written: the response is discarded, and the file removed."""
    with full(0):
        joining = mirror.join(Source(upstream))
    assert isinstance(joining.error, OSError)
    assert upstream.body.discarded
    assert os.listdir(mirror.part.parent) == []


@pytest.mark.usefixtures("cold")
def test_a_partial_file_that_cannot_be_read_is_removed(mirror: Mirror, upstream: Upstream) -> None:
    """A partial file that cannot be read is removed, and its readers are cut off."""
    reader, hashing = join_cold(mirror, upstream)
    client = Client().read(reader, Descriptor(size=SIZE))
    hashing.errback(OSError("input/output error"))
    assert isinstance(client.outcome, Unavailable)
    assert not mirror.part.exists()


@pytest.mark.usefixtures("cold")
def test_a_download_that_stops_goes_on_for_a_new_reader(mirror: Mirror, upstream: Upstream) -> None:
    """A download goes on for a reader who joins while a thread still hashes for one who has left."""
    reader, hashing = join_cold(mirror, upstream)
    reader.leave()
    client = mirror.read(Source(upstream))
    hashing.callback(None)
    finish(upstream, mirror)
    assert (client.data, client.outcome) == (DATA, True)
    assert (upstream.opens, upstream.sent) == ([HALF], HALF)


def test_nothing_is_taken_after_an_interrupt(mirror: Mirror) -> None:
    """A body that goes on although it was cancelled is not written to the file."""
    partial, _ = open_partial(PartialPaths.of(mirror.root, "docker.io", mirror.digest))
    file = FileReader(partial.descriptor, inline)
    progress, interrupt = DownloadProgress(mirror.clock, lambda: None), Interrupt()
    ingest = IngestConsumer(
        progress, partial, BackgroundHasher(mirror.digest, file), interrupt, mirror.context
    )
    ingest.write(b"taken")
    interrupt.set(NoReaders())
    ingest.write(b"not taken")
    assert mirror.part.read_bytes() == b"taken"
    file.close()


def test_the_upstream_waits_for_the_hash(tmp_path: Path) -> None:
    """An upstream that is 64 MiB ahead of the hash is paused, and resumed when that has caught up."""
    data = bytes(MAX_BACKLOG + 1024 * 1024)
    upstream = Upstream(data)
    with all_closed(tmp_path):
        mirror = Mirror(tmp_path, data)
        client = mirror.read(Source(upstream), client=FileClient(len(data)))
        hashing = mirror.hold_threads()
        upstream.body.advance(MAX_BACKLOG - PIECE)
        assert not upstream.body.paused
        upstream.body.advance(2 * PIECE)
        assert upstream.body.paused
        hashing.callback(None)
        assert not upstream.body.paused
        upstream.body.finish()
        mirror.turn(times=100)
        assert (client.outcome, client.data == data) == (True, True)


def test_a_download_ends_when_its_bytes_cannot_be_hashed(tmp_path: Path) -> None:
    """A download ends as soon as its bytes cannot be hashed: nobody would resume the upstream."""
    data = bytes(HASH_STEP + PIECE)
    upstream = Upstream(data)
    with all_closed(tmp_path):
        mirror = Mirror(tmp_path, data)
        client = mirror.read(Source(upstream))
        hashing = mirror.hold_threads()
        upstream.body.advance()
        hashing.errback(OSError("input/output error"))
        assert upstream.body.cancelled
        assert isinstance(client.outcome, Unavailable)
        assert not mirror.part.exists()
