"""The fetch of a download, from an upstream that breaks off, refuses, or lies."""

from __future__ import annotations

import os

import pytest
from twisted.internet.defer import Deferred

from dockmirror.body.in_memory import NoBody
from dockmirror.body.verified import TAIL_HOLDBACK, CorruptContent
from dockmirror.body.wrappers import PAUSES
from dockmirror.interfaces import Answer, ContentKind
from dockmirror.oci.descriptor import Descriptor
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
from dockmirror.store.downloads.context import DownloadStats

from .upstream import (
    ALPINE,
    BUSYBOX,
    DATA,
    DESCRIPTOR,
    HALF,
    SIZE,
    WRONG,
    Client,
    Mirror,
    Source,
    Upstream,
    full,
    leave_cold_part,
    leave_part,
    part,
)


class HeldSource(Source):
    """A source that is answered when the test says so."""

    def __init__(self, upstream: Upstream, refusal: RegistryError) -> None:
        super().__init__(upstream, refusal)
        self.answer: Deferred[None] = Deferred()

    async def open(self, offset: int) -> Answer:
        await self.answer
        return await super().open(offset)


class AnsweredSource(Source):
    """A source that is given this answer."""

    def __init__(self, upstream: Upstream, answer: Answer) -> None:
        super().__init__(upstream)
        self._answer = answer

    async def open(self, offset: int) -> Answer:
        return self._answer


def test_a_download_is_resumed_where_it_broke_off(mirror: Mirror, upstream: Upstream) -> None:
    """A download is resumed where it broke off, however often: no byte is requested twice."""
    clients = [mirror.read(Source(upstream)) for _ in range(2)]
    for count in (1, 1000, HALF):
        upstream.body.send(count).break_off()
        mirror.turn(4)
    upstream.body.finish()
    mirror.turn(times=10)
    assert [client.received for client in clients] == [DATA, DATA]
    assert [client.outcome for client in clients] == [True, True]
    assert (upstream.opens, upstream.sent) == ([0, 1, 1001, 1001 + HALF], SIZE)
    assert mirror.context.stats == DownloadStats(kept=1, resumed=3)


def test_pauses_between_attempts_grow_until_the_download_fails(mirror: Mirror, upstream: Upstream) -> None:
    """After five more attempts all readers fail; the partial file is kept."""
    clients = [mirror.read(Source(upstream)) for _ in range(2)]
    upstream.body.send(1000)
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


def test_a_download_without_readers_is_not_resumed(mirror: Mirror, upstream: Upstream) -> None:
    """A download without readers has no credentials to be resumed with."""
    client = mirror.read(Source(upstream))
    upstream.body.send(HALF)
    client.leave()
    upstream.body.break_off()
    mirror.turn(times=10)
    assert not mirror.is_downloading
    assert (upstream.opens, len(mirror.part.read_bytes())) == ([0], HALF)


def test_a_pause_ends_when_the_last_reader_leaves(mirror: Mirror, upstream: Upstream) -> None:
    """A pause before the next attempt ends when the last reader leaves: no timer is left."""
    client = mirror.read(Source(upstream))
    upstream.body.send(HALF).break_off()
    client.leave()
    assert mirror.clock.getDelayedCalls() == []
    assert not mirror.is_downloading


def test_a_body_that_breaks_off_after_its_last_byte_is_complete(mirror: Mirror, upstream: Upstream) -> None:
    """A body that breaks off after its last byte is complete: nothing is requested again."""
    client = mirror.read(Source(upstream))
    upstream.body.send().break_off()
    mirror.turn(times=10)
    assert (client.received, client.outcome, upstream.opens) == (DATA, True, [0])


def test_each_request_is_made_with_the_source_of_a_present_reader(mirror: Mirror, upstream: Upstream) -> None:
    """When the first reader has left, the rest is requested with the path and credentials of the next one."""
    sources = [Source(upstream), Source(upstream)]
    first, second = [mirror.read(source) for source in sources]
    upstream.body.send(HALF)
    first.leave()
    upstream.body.break_off()
    mirror.turn()
    upstream.body.finish()
    mirror.turn(times=10)
    assert (second.received, second.outcome) == (DATA, True)
    assert [source.opens for source in sources] == [1, 1]


def test_a_reader_that_is_refused_the_rest_fails_alone(mirror: Mirror, upstream: Upstream) -> None:
    """A reader whose credentials have expired fails alone: the rest is requested with the next reader's."""
    sources = [Source(upstream), Source(upstream)]
    first, second = [mirror.read(source) for source in sources]
    upstream.body.send(HALF)
    sources[0].refusal = Unauthorized()
    upstream.body.break_off()
    mirror.turn()
    assert isinstance(first.outcome, Unauthorized)
    upstream.body.finish()
    mirror.turn(times=10)
    assert (second.received, second.outcome, upstream.opens) == (DATA, True, [0, HALF])


@pytest.mark.parametrize("error", [TooManyRequests(), Unavailable(status=503)])
def test_429_and_5xx_are_retried_after_a_pause(
    mirror: Mirror, upstream: Upstream, error: RegistryError
) -> None:
    """An upstream that gave the beginning, and is limited or out of order just now, is asked again."""
    source = Source(upstream)
    client = mirror.read(source)
    upstream.body.send(HALF)
    source.refusal = error
    upstream.body.break_off()
    mirror.turn()
    source.refusal = None
    mirror.turn(1.0, times=5)
    upstream.body.finish()
    mirror.turn(times=10)
    assert (client.received, client.outcome) == (DATA, True)


def test_the_partial_file_is_kept_when_all_readers_are_refused(mirror: Mirror, upstream: Upstream) -> None:
    """When all readers are refused the rest, the partial file is kept: another one may be granted it."""
    source = Source(upstream)
    client = mirror.read(source)
    upstream.body.send(HALF)
    source.refusal = Denied()
    upstream.body.break_off()
    mirror.turn()
    assert isinstance(client.outcome, Denied)
    assert mirror.part.read_bytes() == DATA[:HALF]
    assert not mirror.is_downloading


def test_the_next_reader_begins_when_the_first_is_refused(mirror: Mirror, upstream: Upstream) -> None:
    """When the first reader is refused, the next one's source begins: that reader needs no other check."""
    refused = HeldSource(upstream, Denied())
    first = mirror.join(refused)
    second = mirror.join(Source(upstream), ALPINE)
    refused.answer.callback(None)
    assert isinstance(first.error, Denied)
    assert second.reader is not None
    client = Client().read(second.reader, DESCRIPTOR)
    upstream.body.finish()
    mirror.turn(times=10)
    assert (client.received, upstream.checks) == (DATA, 0)
    assert [repository for repository, _, _ in mirror.contents.links] == [ALPINE]


def test_an_answer_without_a_blob_fails_that_reader(mirror: Mirror, upstream: Upstream) -> None:
    """An answer without a blob, such as a 304, fails that reader; the next one's source is asked."""
    answer = Answer(NoBody(Descriptor()), 304, upstream_status=304)
    first, second = mirror.join(AnsweredSource(upstream, answer)), mirror.join(Source(upstream))
    assert isinstance(first.error, Unavailable)
    assert second.reader is not None
    second.reader.leave()


def test_an_upstream_that_does_not_answer_is_not_asked_again(mirror: Mirror, upstream: Upstream) -> None:
    """An upstream that does not answer the first request is not asked again: the client is told at once."""
    upstream.down = True
    joining = mirror.join(Source(upstream))
    assert isinstance(joining.error, Unreachable)
    assert (upstream.opens, os.listdir(mirror.part.parent)) == ([0], [])
    assert mirror.context.stats == DownloadStats(failed=1)


def test_a_timeout_is_retried(mirror: Mirror, upstream: Upstream) -> None:
    """A timeout is retried, like a connection that breaks off."""
    source = Source(upstream)
    client = mirror.read(source)
    upstream.body.send(HALF).break_off()
    source.refusal = TimedOut()
    mirror.turn()
    source.refusal = None
    mirror.turn(1)
    upstream.body.finish()
    mirror.turn(times=10)
    assert client.received == DATA


def test_a_200_for_a_range_is_read_from_the_offset_on(mirror: Mirror, upstream: Upstream) -> None:
    """An upstream without ranges sends the whole blob again, of which the beginning is dropped."""
    upstream.ranges = False
    client = mirror.read(Source(upstream))
    upstream.body.send(HALF).break_off()
    mirror.turn()
    upstream.body.finish()
    mirror.turn(times=10)
    assert (client.received, client.outcome) == (DATA, True)
    assert mirror.blob.read_bytes() == DATA


@pytest.mark.parametrize(("lie", "value"), [("shift", 7), ("unsatisfied", True), ("rest_size", SIZE + 7)])
def test_a_download_that_cannot_be_resumed_is_restarted(
    mirror: Mirror, upstream: Upstream, lie: str, value: object
) -> None:
    """Readers who were given bytes of the first file fail; the others are given the second."""
    client, late = mirror.read(Source(upstream)), mirror.read(Source(upstream), part(HALF + 1, HALF + 9))
    upstream.body.send(HALF)
    setattr(upstream, lie, value)
    upstream.body.break_off()
    mirror.turn()
    assert isinstance(client.outcome, Unavailable | RangeInvalid)
    assert (upstream.opens, late.outcome) == ([0, HALF, 0], None)
    assert all(body.discarded for body in upstream.bodies[1:-1])
    upstream.body.finish()
    mirror.turn(times=10)
    assert (late.received, late.outcome) == (DATA[HALF + 1 : HALF + 10], True)
    assert mirror.blob.read_bytes() == DATA


def test_restarts_are_limited(mirror: Mirror, upstream: Upstream) -> None:
    """An upstream that always breaks off, and never resumes, is given up."""
    upstream.unsatisfied = True
    late = mirror.read(Source(upstream), part(SIZE - 9, SIZE - 1))
    for _ in range(20):
        if upstream.running:
            upstream.body.send(HALF).break_off()
        mirror.turn(4)
    assert isinstance(late.outcome, Unavailable | RangeInvalid)
    assert len(upstream.opens) < 10


def test_a_wrong_blob_of_unknown_size_is_not_completed(mirror: Mirror, upstream: Upstream) -> None:
    """A wrong blob of unknown size lacks the last 64 KiB that came."""
    upstream.size = None
    client = mirror.read(Source(upstream))
    upstream.body.send_these(DATA[:-1]).end()
    mirror.turn(times=10)
    assert isinstance(client.outcome, CorruptContent)
    assert len(client.received) <= SIZE - 1 - TAIL_HOLDBACK


def test_a_blob_that_was_fetched_in_parts_and_is_wrong_is_fetched_again(
    mirror: Mirror, upstream: Upstream, log: list[str]
) -> None:
    """A blob that came in parts and is wrong is fetched once from its start before the registry is blamed."""
    client, late = mirror.read(Source(upstream)), mirror.read(Source(upstream), part(SIZE - 9, SIZE - 1))
    upstream.body.send_these(WRONG[:HALF]).break_off()
    mirror.turn()
    upstream.body.finish()
    assert type(client.outcome) is Unavailable
    assert (upstream.opens, log) == ([0, HALF, 0], [])
    upstream.body.finish()
    mirror.turn(times=10)
    assert (late.received, late.outcome) == (DATA[-9:], True)
    assert mirror.blob.read_bytes() == DATA


def test_a_blob_that_is_wrong_twice_is_corrupt(mirror: Mirror, upstream: Upstream, log: list[str]) -> None:
    """A blob that is wrong twice is corrupt, in however many parts it came."""
    late = mirror.read(Source(upstream), part(SIZE - 9, SIZE - 1))
    for _ in range(2):
        upstream.body.send_these(WRONG[:HALF]).break_off()
        mirror.turn(4)
        upstream.body.finish()
    assert isinstance(late.outcome, CorruptContent)
    assert len(log) == 1
    assert not mirror.part.exists()
    assert isinstance(mirror.join(Source(upstream)).error, CorruptContent)


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


@pytest.mark.parametrize("told", [None, f"{SIZE}\n", f"{SIZE}", "-\n", f"{SIZE}\nverified {SIZE}\n", "x\n"])
def test_the_file_of_a_killed_process_is_continued(
    mirror: Mirror, upstream: Upstream, told: str | None
) -> None:
    """The partial file of a killed process is continued from its length, whatever became of its metadata."""
    leave_part(mirror, DATA[:HALF], told)
    client = mirror.read(Source(upstream))
    upstream.body.finish()
    mirror.turn(times=10)
    assert (client.received, client.outcome) == (DATA, True)
    assert (upstream.opens, upstream.sent) == ([HALF], SIZE - HALF)
    assert mirror.blob.read_bytes() == DATA
    assert os.listdir(mirror.part.parent) == []


def test_bytes_that_are_there_are_delivered_before_the_upstream_answers(
    mirror: Mirror, upstream: Upstream
) -> None:
    """Bytes that are there are delivered at once, to clients to whom the upstream grants the blob."""
    leave_part(mirror, DATA[:HALF], f"{SIZE}\n")
    upstream.opening = Deferred()
    refused = mirror.join(Source(upstream, Denied()))
    assert isinstance(refused.error, Denied)
    source = Source(upstream)
    client = mirror.read(source)
    mirror.turn(times=10)
    assert (client.received, source.checks) == (DATA[:HALF], 1)
    client.leave()
    assert len(mirror.part.read_bytes()) == HALF


def test_a_partial_file_that_is_complete_needs_no_request(mirror: Mirror, upstream: Upstream) -> None:
    """A partial file that is complete needs no request: the client is checked, and the blob is stored."""
    leave_part(mirror, DATA)
    reader = mirror.enter(Source(upstream))
    assert reader.size == SIZE
    client = Client().read(reader, DESCRIPTOR)
    mirror.turn(times=10)
    assert (client.received, client.outcome) == (DATA, True)
    assert (upstream.opens, upstream.checks) == ([], 1)
    assert mirror.contents.links == [(BUSYBOX, mirror.digest, ContentKind.BLOB)]


@pytest.mark.parametrize("told", [None, f"{SIZE}\n"])
@pytest.mark.parametrize("length", [HALF, SIZE, SIZE + 1])
def test_a_wrong_partial_file_is_replaced(
    mirror: Mirror, upstream: Upstream, log: list[str], length: int, told: str | None
) -> None:
    """A partial file that is wrong or too long is replaced by a new download, and nobody is blamed."""
    leave_part(mirror, (WRONG + b"x")[:length], told)
    joining = mirror.join(Source(upstream))
    late = joining.reader and Client().read(joining.reader, DESCRIPTOR, part(SIZE - 9, SIZE - 1))
    for _ in range(3):
        if upstream.running:
            upstream.running.finish()
        mirror.turn(times=10)
    if late:
        assert (late.received, late.outcome) == (DATA[-9:], True)
    assert mirror.blob.read_bytes() == DATA
    assert (upstream.opens[-1], log) == (0, [])


def test_readers_of_a_wrong_partial_file_are_cut_off(mirror: Mirror, upstream: Upstream) -> None:
    """Readers who have bytes of a wrong partial file are cut off, and not completed from the right one."""
    leave_part(mirror, WRONG[:HALF], f"{SIZE}\n")
    client = mirror.read(Source(upstream))
    mirror.turn(times=10)
    upstream.body.finish()
    assert client.received.startswith(WRONG[:HALF])
    assert isinstance(client.outcome, Unavailable)
    assert not mirror.is_downloading


def test_a_response_is_discarded_if_the_reader_leaves_at_once(mirror: Mirror, upstream: Upstream) -> None:
    """A response is discarded if its reader leaves as soon as it is admitted."""
    upstream.opening = Deferred()
    joining = mirror.join(Source(upstream))
    joining.once(lambda reader: reader.leave())
    upstream.opening.callback(None)
    assert upstream.body.discarded
    assert not mirror.is_downloading


def test_a_join_fails_when_the_size_cannot_be_written(mirror: Mirror, upstream: Upstream) -> None:
    """A join fails when the size cannot be written: the response is discarded, and the file removed."""
    with full(0):
        joining = mirror.join(Source(upstream))
    assert isinstance(joining.error, OSError)
    assert upstream.body.discarded
    assert os.listdir(mirror.part.parent) == []


def test_a_partial_file_that_cannot_be_read_is_removed(mirror: Mirror, upstream: Upstream) -> None:
    """A partial file that cannot be read is removed, and its readers are cut off."""
    leave_cold_part(mirror)
    opening = mirror.hold_threads()
    joining = mirror.join(Source(upstream))
    hashing = mirror.hold_threads()
    opening.callback(None)
    assert joining.reader is not None
    client = Client().read(joining.reader, Descriptor(size=SIZE))
    hashing.errback(OSError("input/output error"))
    assert isinstance(client.outcome, Unavailable)
    assert not mirror.part.exists()


def test_a_download_that_is_about_to_stop_goes_on_for_a_new_reader(
    mirror: Mirror, upstream: Upstream
) -> None:
    """A download goes on for a reader who joins while a thread still hashes for one who has left."""
    leave_cold_part(mirror)
    opening = mirror.hold_threads()
    joining = mirror.join(Source(upstream))
    hashing = mirror.hold_threads()
    opening.callback(None)
    assert joining.reader is not None
    joining.reader.leave()
    client = mirror.read(Source(upstream))
    hashing.callback(None)
    upstream.body.finish()
    mirror.turn(times=10)
    assert (client.received, client.outcome) == (DATA, True)
    assert (upstream.opens, upstream.sent) == ([HALF], HALF)
