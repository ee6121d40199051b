"""Parts of a blob whose blocks are fetched once for all readers."""

from __future__ import annotations

import os
from collections.abc import Awaitable
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from dockmirror.body.bodies import TAIL_HOLDBACK, CorruptContent
from dockmirror.concurrency.coroutines import Changes
from dockmirror.interfaces import IPartSource
from dockmirror.oci.errors import Denied, RangeInvalid, Unavailable, Unreachable
from dockmirror.store.downloads.block_downloads import NO_BLOCKS_TTL
from dockmirror.store.downloads.block_file import BLOCK, CORRUPT_BLOCKS_TTL
from dockmirror.store.downloads.block_waiter import POLL, BlockWaiter, RelayRequired
from dockmirror.store.downloads.context import LINGER, MAX_WAIT

from ...answering import now, watch
from ..downloads.upstream import ALPINE, BUSYBOX, FileClient, full
from .parts import BLOB, BLOCKS, END, MEBIBYTE, PartMirror, PartSource, PartUpstream, set_back, settle

WRONG = os.urandom(END)


async def _await(work: Awaitable[bytes | None]) -> bytes | None:
    return await work


def test_a_closed_part_is_fetched_in_one_request(mirror: PartMirror, upstream: PartUpstream) -> None:
    """The blocks that a part touches are fetched in one request."""
    read = mirror.read_part(PartSource(upstream), MEBIBYTE + 5, 3 * MEBIBYTE + 7)
    assert upstream.requests == [(MEBIBYTE, 4 * MEBIBYTE - 1)]
    settle(upstream, mirror)
    assert (read.outcome, read.data) == (True, BLOB[MEBIBYTE + 5 : 3 * MEBIBYTE + 8])


def test_a_part_is_fetched_from_its_beginning_on(mirror: PartMirror, upstream: PartUpstream) -> None:
    """A client waits for less than a block before its first byte, and the end of the MiB is fetched, too."""
    first = 3 * MEBIBYTE + MEBIBYTE // 2 + 99
    read = mirror.read_part(PartSource(upstream), first, first + 9)
    assert upstream.requests == [(first // BLOCK * BLOCK, 4 * MEBIBYTE - 1)]
    upstream.bodies[0].advance(BLOCK)
    assert read.data == BLOB[first : first + 10]
    settle(upstream, mirror)
    before = mirror.read_part(PartSource(upstream), first - MEBIBYTE, first)
    settle(upstream, mirror)
    assert upstream.requests[1:] == [((first - MEBIBYTE) // BLOCK * BLOCK, first // BLOCK * BLOCK - 1)]
    assert before.data == before.wanted


def test_the_source_provides_its_interface(upstream: PartUpstream) -> None:
    verifyObject(IPartSource, PartSource(upstream))


def test_readers_share_the_blocks(mirror: PartMirror, upstream: PartUpstream) -> None:
    """Each block is fetched once, and the client of each reader must be allowed to have it."""
    reads = [mirror.read_part(PartSource(upstream), 0, 99) for _ in range(5)]
    upstream.finish()
    reads.append(mirror.read_part(PartSource(upstream), 50, MEBIBYTE + 9))
    settle(upstream, mirror)
    assert upstream.requests == [(0, MEBIBYTE - 1), (MEBIBYTE, 2 * MEBIBYTE - 1)]
    assert all((read.outcome, read.data) == (True, read.wanted) for read in reads)
    assert upstream.checks == 5


def test_bytes_are_read_as_they_come(mirror: PartMirror, upstream: PartUpstream) -> None:
    """The readers of one process do not wait until a block is complete."""
    first, second = (mirror.read_part(PartSource(upstream), 10, MEBIBYTE) for _ in range(2))
    upstream.bodies[0].advance(1000)
    assert first.data == second.data == BLOB[10:1000]
    settle(upstream, mirror)
    assert first.data == second.data == BLOB[10 : MEBIBYTE + 1]


def test_blocks_go_to_sockets(mirror: PartMirror, upstream: PartUpstream) -> None:
    """The kernel sends what is in the file, under back-pressure."""
    read = mirror.read_part(PartSource(upstream), 5, 3 * MEBIBYTE, kind=FileClient)
    for _ in range(60):
        settle(upstream, mirror, times=1)
        read.client.resume()
    assert (read.outcome, read.data == read.wanted) == (True, True)
    assert isinstance(read.client, FileClient)
    assert read.client.sent


def test_a_sequential_client_completes_the_blob(mirror: PartMirror, upstream: PartUpstream) -> None:
    """A client that takes its parts of open-ended ranges and leaves ends with the blob held."""
    eight = 8 * MEBIBYTE
    for first in range(0, END, eight):
        read = mirror.read_part(PartSource(upstream), first)
        settle(upstream, mirror)
        if read.outcome is None:
            read.leave()
        assert read.data[:eight] == BLOB[first : first + eight]
    settle(upstream, mirror)
    assert upstream.sent == END
    assert mirror.blob.read_bytes() == BLOB
    assert not mirror.blocks.exists()
    assert mirror.contents.linked == [BUSYBOX]


def test_an_open_ended_part_is_fetched_as_it_is_read(mirror: PartMirror, upstream: PartUpstream) -> None:
    """No more than eight blocks are fetched ahead of a client that takes nothing."""
    read = mirror.read_part(PartSource(upstream), MEBIBYTE)
    read.client.pause()
    settle(upstream, mirror)
    assert upstream.requests == [(MEBIBYTE, 8 * MEBIBYTE - 1)]
    read.leave()


def test_a_fetch_goes_on_for_some_seconds(mirror: PartMirror, upstream: PartUpstream) -> None:
    """A reader that has left counts as one for some seconds; then the fetch is given up."""
    mirror.read_part(PartSource(upstream), 0).leave()
    upstream.bodies[0].advance(MEBIBYTE + 1)
    assert not upstream.bodies[0].over
    mirror.turn(LINGER)
    assert upstream.bodies[0].state == "cancelled"
    read = mirror.read_part(PartSource(upstream), 0, MEBIBYTE - 1)
    mirror.turn(times=2)
    assert (read.data, len(upstream.requests)) == (BLOB[:MEBIBYTE], 1)


def test_the_rest_is_fetched_when_half_is_there(mirror: PartMirror, upstream: PartUpstream) -> None:
    """The blob is completed in the background, in order, and kept."""
    mirror.read_part(PartSource(upstream), 5 * MEBIBYTE, 14 * MEBIBYTE - 1)
    settle(upstream, mirror)
    assert len(upstream.requests) == 1
    mirror.read_part(PartSource(upstream), 15 * MEBIBYTE, 16 * MEBIBYTE - 1)
    settle(upstream, mirror)
    assert upstream.requests[2:] == [
        (0, 5 * MEBIBYTE - 1),
        (14 * MEBIBYTE, 15 * MEBIBYTE - 1),
        (16 * MEBIBYTE, END - 1),
    ]
    assert mirror.blob.read_bytes() == BLOB
    assert (mirror.context.stats.kept, mirror.written) == (1, END)


def test_every_repository_that_consented_is_linked(mirror: PartMirror, upstream: PartUpstream) -> None:
    first = mirror.read_part(PartSource(upstream), 0, 99)
    mirror.repository = ALPINE
    second = mirror.read_part(PartSource(upstream), 0, END - 1)
    settle(upstream, mirror)
    assert (first.outcome, second.outcome) == (True, True)
    assert sorted(each.name for each in mirror.contents.linked) == [ALPINE.name, BUSYBOX.name]


@pytest.mark.parametrize("spoilt", [False, True])
def test_the_tail_of_a_whole_blob_waits_for_the_digest(
    mirror: PartMirror, upstream: PartUpstream, spoilt: bool
) -> None:
    """A reader of all bytes is given the last of them when they are verified, and is cut off otherwise."""
    if spoilt:
        upstream.data = WRONG
    read = mirror.read_part(PartSource(upstream), 0, END - 1)
    settle(upstream, mirror)
    if spoilt:
        assert isinstance(read.outcome, CorruptContent)
        assert len(read.data) <= END - TAIL_HOLDBACK
    else:
        assert (read.outcome, read.data == BLOB) == (True, True)


def test_a_small_blob_is_verified_first(tmp_path: Path) -> None:
    """Nothing of a blob that is shorter than the tail is given to a reader of all of it before."""
    mirror, upstream = PartMirror(tmp_path, b"small"), PartUpstream(b"wrong")
    read = mirror.read_part(PartSource(upstream), 0)
    settle(upstream, mirror)
    assert isinstance(read.outcome, CorruptContent)
    assert read.data == b""
    mirror.turn(LINGER)


def test_a_wrong_blob_is_relayed_for_a_while(
    mirror: PartMirror, other: PartMirror, upstream: PartUpstream
) -> None:
    """Wrong blocks are dropped, their readers cut off, and no process makes new ones for ten minutes."""
    upstream.data = WRONG
    near = mirror.read_part(PartSource(upstream), 0, 9 * MEBIBYTE - 1)
    settle(upstream, mirror)
    far = other.read_part(PartSource(upstream), 0)
    far.client.pause()
    mirror.read_part(PartSource(upstream), 10 * MEBIBYTE, END - 1).client.pause()
    slow = mirror.read_part(PartSource(upstream), 0)
    slow.client.pause()
    settle(upstream, mirror, other)
    assert near.outcome is True
    assert mirror.context.stats.wrong + other.context.stats.wrong == 1
    for read in (slow, far):
        read.client.resume()
        settle(upstream, mirror, other)
        assert isinstance(read.outcome, Unavailable)
    count = len(upstream.requests)
    assert all(each.read_part(PartSource(upstream), 0, 99).is_relayed for each in (mirror, other))
    assert not mirror.blob.exists()
    assert len(upstream.requests) == count
    upstream.data = BLOB
    for each in (mirror, other):
        each.turn(CORRUPT_BLOCKS_TTL)
    again = other.read_part(PartSource(upstream), 0, END - 1)
    settle(upstream, mirror, other)
    assert (again.outcome, mirror.blob.read_bytes() == BLOB) == (True, True)


def test_blocks_of_a_newer_version_are_left_alone(mirror: PartMirror, upstream: PartUpstream) -> None:
    """Parts are relayed while another format of the blocks is there."""
    mirror.read_part(PartSource(upstream), 0, 99)
    settle(upstream, mirror)
    mirror.kill()
    newer = mirror.blocks.read_bytes().replace(b"dockmirror blocks 2 ", b"dockmirror blocks 3 ")
    mirror.blocks.write_bytes(newer)
    other = PartMirror(mirror.root)
    assert other.read_part(PartSource(upstream), 0, 99).is_relayed
    assert mirror.blocks.read_bytes() == newer


@pytest.mark.parametrize(("etag", "size"), [('"two"', END), ('"one"', END - 9)])
def test_blocks_of_another_version_are_dropped(
    mirror: PartMirror, upstream: PartUpstream, etag: str, size: int
) -> None:
    """Readers with bytes of the old version are cut off; new ones are given the new version."""
    old = mirror.read_part(PartSource(upstream), 0)
    upstream.bodies[0].advance(100)
    old.client.pause()
    settle(upstream, mirror)
    upstream.etag, upstream.data, upstream.size = etag, WRONG[:size], size
    new = mirror.read_part(PartSource(upstream), 12 * MEBIBYTE, 13 * MEBIBYTE)
    settle(upstream, mirror)
    old.client.resume()
    mirror.turn()
    assert isinstance(old.outcome, Unavailable)
    assert BLOB.startswith(old.data)
    assert (new.outcome, new.data) == (True, WRONG[12 * MEBIBYTE : 13 * MEBIBYTE + 1])


def test_an_upstream_without_entity_tags(
    mirror: PartMirror, other: PartMirror, upstream: PartUpstream
) -> None:
    """A missing or weak entity tag says nothing; the first strong one is compared with later ones."""
    for block, etag in enumerate([None, 'W/"weak"', '"strong"', None, 'W/"weaker"', '"strong"']):
        upstream.etag = etag
        read = mirror.read_part(PartSource(upstream), block * MEBIBYTE, block * MEBIBYTE)
        upstream.finish()
        assert read.data == BLOB[block * MEBIBYTE : block * MEBIBYTE + 1]
    count = len(upstream.requests)
    assert mirror.read_part(PartSource(upstream), 0, 0).data == BLOB[:1]
    assert len(upstream.requests) == count
    upstream.etag = '"another"'
    changed = other.read_part(PartSource(upstream), 7 * MEBIBYTE, 7 * MEBIBYTE)
    settle(upstream, mirror, other)
    assert (changed.outcome, upstream.requests[-1]) == (True, (7 * MEBIBYTE, 8 * MEBIBYTE - 1))
    mirror.read_part(PartSource(upstream), 0, 0)
    settle(upstream, mirror, other)
    assert upstream.requests[-1] == (0, MEBIBYTE - 1)


@pytest.mark.parametrize("ranges", [False, True])
def test_an_upstream_that_serves_no_ranges(mirror: PartMirror, upstream: PartUpstream, ranges: bool) -> None:
    """Parts are relayed for a while where the upstream sends the whole blob, or does not say its size."""
    upstream.ranges = ranges
    upstream.size = None if ranges else END
    assert mirror.read_part(PartSource(upstream), 0, 99).is_relayed
    assert mirror.read_part(PartSource(upstream), 0, 99).is_relayed
    assert (len(upstream.requests), upstream.bodies[0].state) == (1, "discarded")
    assert not mirror.blocks.exists()
    mirror.turn(NO_BLOCKS_TTL)
    upstream.ranges, upstream.size = True, END
    assert not mirror.read_part(PartSource(upstream), 0, 99).is_relayed
    settle(upstream, mirror)


def test_clients_that_wait_for_an_upstream_without_ranges(mirror: PartMirror, upstream: PartUpstream) -> None:
    """The answer to the first one is the answer to all of them."""
    upstream.ranges, upstream.opening = False, Deferred()
    reads = [mirror.read_part(PartSource(upstream), 0, 99) for _ in range(5)]
    upstream.opening.callback(None)
    assert all(read.is_relayed for read in reads)
    assert len(upstream.requests) == 1


def test_a_refused_client_is_given_nothing(mirror: PartMirror, upstream: PartUpstream) -> None:
    """The upstream's refusal of one client is that client's only."""
    assert isinstance(mirror.read_part(PartSource(upstream, Denied()), 0, 99).error, Denied)
    assert not mirror.blocks.exists()
    read = mirror.read_part(PartSource(upstream), 0, 99)
    refused = mirror.read_part(PartSource(upstream, Denied()), 0, 99)
    settle(upstream, mirror)
    late = mirror.read_part(PartSource(upstream, Denied()), 0, 99)
    assert (read.outcome, read.data) == (True, BLOB[:100])
    for each in (refused, late):
        assert isinstance(each.error, Denied)
        assert each.data == b""


def test_a_client_that_is_refused_in_the_middle(mirror: PartMirror, upstream: PartUpstream) -> None:
    """A reader whose next request is refused is cut off; another one fetches with its own source."""
    source = PartSource(upstream)
    read, other = mirror.read_part(source, 0), mirror.read_part(PartSource(upstream), 0)
    source.refusal = Denied()
    settle(upstream, mirror)
    assert (isinstance(read.outcome, Denied), other.outcome, other.data == BLOB) == (True, True, True)


def test_what_is_compared_is_held(mirror: PartMirror, upstream: PartUpstream) -> None:
    """The part to compare with the upstream's lies in a block that is there."""
    mirror.read_part(PartSource(upstream), 7 * MEBIBYTE, 7 * MEBIBYTE)
    upstream.finish()
    source = PartSource(upstream)
    read = mirror.read_part(source, 0, 0)
    assert source.held is not None
    part = source.held.part
    assert part is not None
    assert (part.first // MEBIBYTE, part.length, part.size) == (7, 64, END)
    reading = Deferred.fromCoroutine(_await(source.held.read(part)))
    assert now(reading) == BLOB[part.first : part.last + 1]
    settle(upstream, mirror)
    assert read.data == BLOB[:1]


@pytest.mark.parametrize("cause", ["left", "changed", "no ranges"])
def test_a_check_outlives_the_reader_that_began_it(
    mirror: PartMirror, upstream: PartUpstream, cause: str
) -> None:
    """Others may wait for the same check, which ends without a result if its reader leaves or fails."""
    mirror.read_part(PartSource(upstream), 0, 99)
    (source := PartSource(upstream)).checking = Deferred()
    second = mirror.read_part(source, 0, 99)
    assert source.held is not None
    assert source.held.part is not None
    reading = Deferred.fromCoroutine(_await(source.held.read(source.held.part)))
    assert not reading.called
    if cause == "left":
        second.leave()
    elif cause == "changed":
        upstream.etag = '"two"'
        mirror.read_part(PartSource(upstream), 2 * MEBIBYTE, 2 * MEBIBYTE)
    else:
        upstream.bodies[0].break_off()
        upstream.ranges = False
        mirror.turn(1)
        settle(upstream, mirror, times=int(MAX_WAIT / POLL))
    assert now(reading) is None
    late = Deferred.fromCoroutine(_await(source.held.read(source.held.part)))
    assert now(late) is None
    source.checking.callback(None)
    settle(upstream, mirror)


def test_a_mistake_of_ours_fails_the_reader(
    mirror: PartMirror, upstream: PartUpstream, log: list[str]
) -> None:
    """An unexpected exception is logged with its traceback; the reader is refused, and others fetch again."""
    source = PartSource(upstream)
    read = mirror.read_part(source, 0)
    source.refusal = ValueError("a mistake")
    settle(upstream, mirror)
    assert isinstance(read.outcome, Unavailable)
    assert "failed unexpectedly" in log[0]
    other = mirror.read_part(PartSource(upstream), 9 * MEBIBYTE, 9 * MEBIBYTE)
    settle(upstream, mirror)
    assert (other.outcome, other.data) == (True, other.wanted)


def test_the_last_bytes_of_a_blob_of_unknown_size(mirror: PartMirror, upstream: PartUpstream) -> None:
    """The first block tells the size."""
    read = mirror.read_part(PartSource(upstream), None, suffix=100)
    settle(upstream, mirror)
    assert upstream.requests[:2] == [(0, MEBIBYTE - 1), ((END - 100) // BLOCK * BLOCK, END - 1)]
    assert (read.outcome, read.data) == (True, BLOB[-100:])


def test_a_part_behind_the_end(mirror: PartMirror, upstream: PartUpstream) -> None:
    """There is no such part, whether the size is known or not."""
    for first in (END + MEBIBYTE, END, END + 1):
        read = mirror.read_part(PartSource(upstream), first, first + 9)
        assert isinstance(read.error, RangeInvalid)
        assert read.error.content_size == END
        settle(upstream, mirror)


def test_an_upstream_that_is_down(mirror: PartMirror, upstream: PartUpstream) -> None:
    """The first request is not repeated."""
    upstream.down = True
    assert isinstance(mirror.read_part(PartSource(upstream), 0, 99).error, Unreachable)
    assert len(upstream.requests) == 1


def test_a_fetch_that_breaks_off_is_resumed(mirror: PartMirror, upstream: PartUpstream) -> None:
    """No byte is fetched twice."""
    read = mirror.read_part(PartSource(upstream), 0, 2 * MEBIBYTE - 1)
    upstream.bodies[0].advance(MEBIBYTE + 7).break_off()
    mirror.turn(1)
    assert upstream.requests == [(0, 2 * MEBIBYTE - 1), (MEBIBYTE + 7, 2 * MEBIBYTE - 1)]
    settle(upstream, mirror)
    assert (read.outcome, read.data == read.wanted, mirror.context.stats.resumed) == (True, True, 1)
    assert upstream.sent == 2 * MEBIBYTE


def test_an_upstream_that_breaks_off_too_often(mirror: PartMirror, upstream: PartUpstream) -> None:
    """The reader is cut off, and what it was given is right."""
    read = mirror.read_part(PartSource(upstream), 0, 99)
    for _ in range(6):
        for body in upstream.running:
            body.advance(1).break_off()
        mirror.turn(5)
    assert isinstance(read.outcome, Unreachable)
    assert read.data == BLOB[:6]


def test_a_slow_reader_outlives_the_request_of_another_one(
    mirror: PartMirror, upstream: PartUpstream
) -> None:
    """Bytes that went away while its client took none are fetched again, by the reader itself."""
    first, second = (mirror.read_part(PartSource(upstream), 0, 999) for _ in range(2))
    second.client.pause()
    upstream.bodies[0].advance(100)
    mirror.turn(1)
    for _ in range(6):
        for body in upstream.running:
            body.break_off()
        mirror.turn(5)
    assert isinstance(first.outcome, Unreachable)
    second.client.resume()
    settle(upstream, mirror)
    assert (second.outcome, second.data) == (True, BLOB[:1000])


def test_nothing_waits_long_for_another_reader(mirror: PartMirror, upstream: PartUpstream) -> None:
    """A reader whose bytes do not come within 5 s fetches the rest of its part by itself."""
    first, second = (
        mirror.read_part(PartSource(upstream), 0, 999),
        mirror.read_part(PartSource(upstream), 0, 999),
    )
    upstream.bodies[0].advance(100)
    mirror.turn(MAX_WAIT - 0.1)
    upstream.bodies[0].advance(100)
    mirror.turn(MAX_WAIT - 0.1)
    assert len(upstream.requests) == 1
    mirror.turn(0.1)
    assert upstream.requests[1:] == [(200, 999)]
    upstream.bodies[1].finish()
    assert (second.outcome, second.data, first.outcome) == (True, BLOB[:1000], None)
    settle(upstream, mirror)
    assert (first.outcome, first.data) == (True, BLOB[:1000])


def test_waits_for_its_own_request_do_not_count() -> None:
    """Only the time counts for which a reader has waited for others without a byte."""
    clock, changes = Clock(), Changes()
    waiter = BlockWaiter(PartSource(PartUpstream()), clock, changes, lambda: None)
    own = watch(waiter.wait(2 * MAX_WAIT, own=True))
    clock.advance(2 * MAX_WAIT)
    assert own == [None]
    others = watch(waiter.wait(None))
    clock.advance(MAX_WAIT - 0.1)
    assert others == []
    clock.advance(0.1)
    assert others == [None]
    with pytest.raises(RelayRequired):
        now(waiter.wait(None))


def test_a_clock_that_is_set_back_makes_no_wait_for_blocks_longer() -> None:
    clock, changes = Clock(), Changes()
    waiter = BlockWaiter(PartSource(PartUpstream()), clock, changes, lambda: None)
    waits = [watch(waiter.wait(None))]
    clock.advance(1)
    set_back(clock, 3600)
    changes.notify()
    waits.append(watch(waiter.wait(None)))
    clock.advance(MAX_WAIT)
    assert waits == [[None], [None]]
    with pytest.raises(RelayRequired):
        now(waiter.wait(None))


def test_the_rest_must_be_of_the_same_version(mirror: PartMirror, upstream: PartUpstream) -> None:
    """A reader that fetches the rest by itself is cut off if the upstream has another blob by then."""
    mirror.read_part(PartSource(upstream), 0, 999)
    second = mirror.read_part(PartSource(upstream), 0, 999)
    upstream.bodies[0].advance(100)
    upstream.etag = '"two"'
    mirror.turn(MAX_WAIT)
    assert isinstance(second.outcome, Unavailable)
    assert second.data == BLOB[:100]
    settle(upstream, mirror)


def test_nothing_waits_long_for_another_process(
    mirror: PartMirror, other: PartMirror, upstream: PartUpstream
) -> None:
    """Neither for the upstream's first answer, nor for a block."""
    upstream.opening = Deferred()
    first, second = (
        mirror.read_part(PartSource(upstream), 0, 99),
        other.read_part(PartSource(upstream), 0, 99),
    )
    other.turn(POLL, int(MAX_WAIT / POLL) + 2)
    assert second.is_relayed
    opening, upstream.opening = upstream.opening, None
    opening.callback(None)
    third = other.read_part(PartSource(upstream), 0, 99)
    other.turn(POLL, int(MAX_WAIT / POLL) + 2)
    assert third.is_relayed
    fourth = other.read_part(PartSource(upstream), MEBIBYTE - 10, MEBIBYTE + 9)
    upstream.finish()
    assert len(upstream.requests) == 1
    other.turn(POLL)
    settle(upstream, mirror, other)
    assert (first.outcome, fourth.outcome, fourth.data == fourth.wanted) == (True, True, True)


def test_another_process_reads_the_blocks(
    mirror: PartMirror, other: PartMirror, upstream: PartUpstream
) -> None:
    """A reader in another process is given the blocks when they are there; nothing is fetched twice."""
    first, second = (
        mirror.read_part(PartSource(upstream), 0, 99),
        other.read_part(PartSource(upstream), 0, MEBIBYTE),
    )
    settle(upstream, mirror, other)
    assert upstream.requests == [(0, MEBIBYTE - 1), (MEBIBYTE, 2 * MEBIBYTE - 1)]
    assert (first.outcome, first.data) == (True, BLOB[:100])
    assert (second.outcome, second.data == second.wanted) == (True, True)


def test_the_blob_is_linked_where_another_process_completed_it(
    mirror: PartMirror, other: PartMirror, upstream: PartUpstream
) -> None:
    """Each process links the blob to the repositories of its own readers."""
    other.repository = ALPINE
    mirror.read_part(PartSource(upstream), 0, 99)
    upstream.finish()
    other.read_part(PartSource(upstream), 0, 99)
    mirror.read_part(PartSource(upstream), 0, END - 1)
    settle(upstream, mirror)
    other.turn(POLL)
    assert mirror.blob.exists()
    other.turn(LINGER)
    assert (mirror.contents.linked, other.contents.linked) == ([BUSYBOX], [ALPINE])


def test_the_blocks_of_a_killed_process(
    mirror: PartMirror, other: PartMirror, upstream: PartUpstream
) -> None:
    """Another process fetches the blocks that it has not finished."""
    killed = mirror.read_part(PartSource(upstream), 0)
    upstream.bodies[0].advance(MEBIBYTE + 9)
    read = other.read_part(PartSource(theirs := PartUpstream()), 0, 2 * MEBIBYTE - 1)
    other.turn(POLL)
    assert theirs.requests == []
    mirror.kill()
    settle(theirs, other)
    assert theirs.requests == [(MEBIBYTE, 2 * MEBIBYTE - 1)]
    assert (read.outcome, read.data == read.wanted) == (True, True)
    killed.leave()
    upstream.bodies[0].break_off()


def test_the_map_survives_a_restart(mirror: PartMirror, other: PartMirror, upstream: PartUpstream) -> None:
    """Blocks are read again without a request; one that the disk has lost is fetched again."""
    mirror.read_part(PartSource(upstream), 0, 3 * MEBIBYTE - 1)
    settle(upstream, mirror)
    mirror.turn(LINGER)
    with open(mirror.blocks, "r+b") as file:
        file.seek(MEBIBYTE + 5)
        file.write(b"\0" * 100)
    read = other.read_part(PartSource(upstream), 0, 3 * MEBIBYTE - 1)
    settle(upstream, other)
    assert upstream.requests[1:] == [(MEBIBYTE, MEBIBYTE + BLOCK - 1)]
    assert (read.outcome, read.data == read.wanted) == (True, True)


def test_a_file_that_was_not_finished(mirror: PartMirror, other: PartMirror, upstream: PartUpstream) -> None:
    """A process that dies as it cuts the map off leaves a file that is replaced; its readers keep theirs."""
    read = mirror.read_part(PartSource(upstream), 0, 3 * MEBIBYTE)
    read.client.pause()
    upstream.finish()
    os.truncate(mirror.blocks, END)
    upstream.data, upstream.etag = WRONG, '"two"'
    late = other.read_part(PartSource(upstream), 0, 99)
    settle(upstream, other)
    assert (late.outcome, late.data) == (True, WRONG[:100])
    read.client.resume()
    settle(upstream, mirror)
    assert isinstance(read.outcome, Unavailable)
    assert BLOB.startswith(read.data)


def test_a_file_that_is_finished_as_it_is_opened(
    mirror: PartMirror, other: PartMirror, upstream: PartUpstream
) -> None:
    """A reader that has opened it while its map was cut off reads the finished blob."""
    mirror.read_part(PartSource(upstream), 0, 10 * MEBIBYTE)
    hashing = mirror.hold_threads()
    settle(upstream, mirror, times=3)
    os.truncate(mirror.blocks, END)
    read = other.read_part(PartSource(upstream), MEBIBYTE, MEBIBYTE + 99)
    hashing.callback(None)
    assert mirror.blob.exists()
    settle(upstream, mirror, other)
    assert (read.error, read.outcome, read.data) == (None, True, BLOB[MEBIBYTE : MEBIBYTE + 100])


@pytest.mark.parametrize("data", [BLOB, WRONG])
def test_a_file_that_is_evicted_while_it_is_hashed(
    mirror: PartMirror, other: PartMirror, upstream: PartUpstream, data: bytes
) -> None:
    """The file that another process has made meanwhile is left alone."""
    upstream.data = data
    mirror.read_part(PartSource(upstream), 0, 10 * MEBIBYTE)
    mirror.read_part(PartSource(upstream), 11 * MEBIBYTE, 18 * MEBIBYTE)
    for body in upstream.running:
        body.finish()
    hashing = mirror.hold_threads()
    upstream.finish()
    upstream.finish()
    assert upstream.sent == END
    mirror.blocks.unlink()
    late = other.read_part(PartSource(upstream), 0, 99)
    hashing.callback(None)
    mirror.turn(POLL)
    assert not mirror.blob.exists()
    assert mirror.blocks.stat().st_size > END
    settle(upstream, mirror, other)
    assert (late.outcome, late.data) == (True, data[:100])


def test_blocks_are_in_use_while_they_are_hashed(mirror: PartMirror, upstream: PartUpstream) -> None:
    """They are not evicted then, however long it takes."""
    mirror.read_part(PartSource(upstream), 0, 10 * MEBIBYTE)
    hashing = mirror.hold_threads()
    settle(upstream, mirror, times=3)
    mirror.clock.advance(1000)
    settled = mirror.hold_threads()
    hashing.callback(None)
    assert mirror.blocks.stat().st_mtime == mirror.clock.seconds()
    settled.callback(None)
    settle(upstream, mirror)
    assert mirror.blob.exists()


def test_a_blob_that_was_written_to_is_not_complete(mirror: PartMirror, upstream: PartUpstream) -> None:
    """A file that has the name of the blob counts only while it is sealed."""
    read = mirror.read_part(PartSource(upstream), 0)
    read.client.pause()
    settle(upstream, mirror, times=2)
    mirror.blob.parent.mkdir(parents=True, exist_ok=True)
    mirror.blocks.rename(mirror.blob)
    read.client.resume()
    settle(upstream, mirror)
    assert (read.outcome, read.data == BLOB) == (True, True)
    assert not mirror.contents.linked


def test_blocks_that_were_evicted(mirror: PartMirror, upstream: PartUpstream) -> None:
    """A reader goes on by itself, and new ones are given new blocks."""
    read = mirror.read_part(PartSource(upstream), 0)
    read.client.pause()
    settle(upstream, mirror)
    mirror.blocks.unlink()
    new = mirror.read_part(PartSource(upstream), 0, 99)
    settle(upstream, mirror)
    assert upstream.requests[1:] == [(0, MEBIBYTE - 1)]
    read.client.resume()
    settle(upstream, mirror)
    assert (new.outcome, read.outcome, read.data == BLOB) == (True, True, True)


def test_a_blob_that_was_downloaded_meanwhile(mirror: PartMirror, upstream: PartUpstream) -> None:
    """A part of it is read from the finished blob, by who may have it."""
    mirror.read_part(PartSource(upstream), 0, 99)
    settle(upstream, mirror)
    mirror.turn(LINGER)
    mirror.read(PartSource(upstream))
    settle(upstream, mirror)
    count = len(upstream.requests)
    assert isinstance(mirror.read_part(PartSource(upstream, Denied()), 0, 99).error, Denied)
    read = mirror.read_part(PartSource(upstream), 5 * MEBIBYTE, 5 * MEBIBYTE + 99)
    assert (read.outcome, read.data == read.wanted, len(upstream.requests)) == (True, True, count)


def test_a_full_disk(mirror: PartMirror, upstream: PartUpstream) -> None:
    """Readers fetch what the disk does not take by themselves."""
    read = mirror.read_part(PartSource(upstream), 0, 2 * MEBIBYTE)
    with full(MEBIBYTE + 100):
        upstream.bodies[0].advance()
    settle(upstream, mirror)
    assert (read.outcome, read.data == read.wanted) == (True, True)
    with full(MEBIBYTE):
        again = mirror.read_part(PartSource(upstream), 9 * MEBIBYTE, 9 * MEBIBYTE)
        settle(upstream, mirror)
    assert (again.outcome, again.data) == (True, again.wanted)


def test_an_entity_tag_that_the_disk_does_not_take(mirror: PartMirror, upstream: PartUpstream) -> None:
    """A client that waits for the answer with the entity tag is told to fetch its part by itself."""
    upstream.etag = None
    first = mirror.read_part(PartSource(upstream), 0)
    first.client.pause()
    upstream.etag = '"one"'
    with full(0):
        read = mirror.read_part(PartSource(upstream), 9 * MEBIBYTE, 9 * MEBIBYTE)
        mirror.turn(POLL)
    assert read.is_relayed
    first.leave()
    upstream.finish()


def test_a_directory_that_cannot_be_written(mirror: PartMirror, upstream: PartUpstream) -> None:
    mirror.blocks.parent.parent.mkdir(parents=True)
    mirror.blocks.parent.write_text("no directory")
    assert mirror.read_part(PartSource(upstream), 0, 99).is_relayed
    assert upstream.requests == []


@pytest.mark.parametrize("step", range(8))
def test_a_reader_that_leaves_at_any_time(mirror: PartMirror, upstream: PartUpstream, step: int) -> None:
    """Another reader is given all of its part."""
    upstream.opening = Deferred()
    first, second = (
        mirror.read_part(PartSource(upstream), 0),
        mirror.read_part(PartSource(upstream), 0, MEBIBYTE),
    )
    opening, upstream.opening = upstream.opening, None
    for turn in range(9):
        if turn == step:
            first.leave()
        if turn == 1:
            opening.callback(None)
        for body in upstream.running:
            body.advance(MEBIBYTE // 3)
        mirror.turn(POLL)
    settle(upstream, mirror)
    assert (second.outcome, second.data == second.wanted) == (True, True)
    assert upstream.sent <= BLOCKS * MEBIBYTE
