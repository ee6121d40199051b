"""Downloads of a whole blob of which ranges have left blocks."""

from __future__ import annotations

import os

import pytest
from twisted.internet.defer import Deferred

from dockmirror.oci.errors import Denied, Unavailable
from dockmirror.store.downloads.block_file import BLOCK, BlockFile
from dockmirror.store.downloads.context import LINGER, BlobVersion
from dockmirror.store.downloads.upstream_fetch import PresentBlocks

from ...answering import now
from ..downloads.upstream import REGISTRY, Client
from ..threads import inline
from .parts import BLOB, END, MEBIBYTE, PIECE, PartMirror, PartSource, PartUpstream, settle

WRONG = os.urandom(END)


def leave_blocks(mirror: PartMirror, upstream: PartUpstream, *runs: tuple[int, int]) -> None:
    """Have these blocks fetched, up to the second of each pair, and forget the requests."""
    for first, end in runs:
        mirror.read_part(PartSource(upstream), first * MEBIBYTE, end * MEBIBYTE - 1)
        settle(upstream, mirror, times=5)
    mirror.turn(LINGER)
    upstream.requests.clear()


def read(mirror: PartMirror, upstream: PartUpstream) -> Client:
    """Read the whole blob, as far as its upstream sends it."""
    client = mirror.read(PartSource(upstream))
    settle(upstream, mirror)
    return client


@pytest.mark.parametrize(
    ("runs", "offsets"),
    [
        ([(0, 2)], [2]),
        ([(2, 6)], [0, 6]),
        ([(0, 1), (5, 9)], [1, 9]),
        ([(3, 5), (16, 20)], [0]),
        ([(9, 12)], [0]),
    ],
)
def test_a_download_takes_the_blocks_over(
    mirror: PartMirror, upstream: PartUpstream, runs: list[tuple[int, int]], offsets: list[int]
) -> None:
    """It requests what lies between them, unless that would leave out less than four blocks."""
    leave_blocks(mirror, upstream, *runs)
    before = upstream.sent
    client = read(mirror, upstream)
    assert (client.outcome, client.data == BLOB) == (True, True)
    assert mirror.blob.read_bytes() == BLOB
    assert [first // MEBIBYTE for first, _ in upstream.requests] == offsets
    left_out = sum(end - first for first, end in runs if first == 0 or end in offsets)
    assert upstream.sent - before <= END - left_out * MEBIBYTE + len(offsets) * PIECE


def test_blocks_of_a_large_blob_are_found_at_once(mirror: PartMirror) -> None:
    """Also those that another process adds while the download goes on."""
    file = BlockFile(mirror.root, REGISTRY, mirror.digest, inline)
    file.create(BlobVersion(640 * MEBIBYTE), range(0))
    for block in range(100 * MEBIBYTE // BLOCK, 104 * MEBIBYTE // BLOCK):
        file.record(block, 0)
    blocks = now(PresentBlocks.open(mirror.context, REGISTRY, mirror.digest))
    assert blocks is not None
    assert blocks.missing(0) == 100 * MEBIBYTE
    for block in range(20 * MEBIBYTE // BLOCK, 24 * MEBIBYTE // BLOCK):
        file.record(block, 0)
    assert blocks.missing(5) == 20 * MEBIBYTE - 5
    blocks.close()
    file.close()


def test_blocks_of_another_size_are_left(mirror: PartMirror, upstream: PartUpstream) -> None:
    """The blob is fetched in one request, though blocks of something else are in its place."""
    upstream.data = WRONG[:-5]
    upstream.size = END - 5
    leave_blocks(mirror, upstream, (3, 9))
    upstream.data, upstream.size = BLOB, END
    client = read(mirror, upstream)
    assert (client.outcome, client.data == BLOB) == (True, True)
    assert [first for first, _ in upstream.requests] == [0]


def test_blocks_that_cannot_be_opened(mirror: PartMirror, upstream: PartUpstream, log: list[str]) -> None:
    """The blob is fetched and kept without them."""
    mirror.blocks.mkdir(parents=True)
    client = read(mirror, upstream)
    assert (client.outcome, client.data == BLOB, mirror.blob.exists()) == (True, True, True)
    assert "Is a directory" in log[0]


def test_a_download_of_blocks_alone(mirror: PartMirror, upstream: PartUpstream) -> None:
    """All of them may be there while they are not verified."""
    mirror.read_part(PartSource(upstream), 0, 10 * MEBIBYTE - 1)
    for body in upstream.running:
        body.finish()
    mirror.read_part(PartSource(upstream), 10 * MEBIBYTE, END - 1)
    hashing = mirror.hold_threads()
    settle(upstream, mirror, times=3)
    count = len(upstream.requests)
    client = mirror.read(PartSource(upstream))
    settle(upstream, mirror)
    assert (client.outcome, client.data == BLOB, len(upstream.requests)) == (True, True, count)
    hashing.callback(None)
    settle(upstream, mirror)


def test_wrong_blocks_are_not_taken_twice(mirror: PartMirror, upstream: PartUpstream) -> None:
    """A reader that was given them is cut off; the download begins again without them."""
    upstream.data = WRONG
    leave_blocks(mirror, upstream, (0, 2))
    upstream.data = BLOB
    first = read(mirror, upstream)
    assert isinstance(first.outcome, Unavailable)
    assert len(first.data) < END
    assert mirror.context.stats.wrong == 0
    second = read(mirror, upstream)
    assert (second.outcome, second.data == BLOB) == (True, True)


def test_a_waiting_reader_is_given_the_right_blob(mirror: PartMirror, upstream: PartUpstream) -> None:
    """A reader that has no bytes yet when the blocks prove wrong reads the blob that is fetched anew."""
    upstream.data = WRONG
    leave_blocks(mirror, upstream, (0, 2))
    upstream.data = BLOB
    reader = mirror.enter(PartSource(upstream))
    settle(upstream, mirror)
    client = Client().read(reader, mirror.descriptor)
    mirror.turn(times=30)
    assert (client.outcome, client.data == BLOB) == (True, True)


def test_blocks_prove_no_access(mirror: PartMirror, upstream: PartUpstream) -> None:
    """A client that the upstream refuses is given nothing of them."""
    leave_blocks(mirror, upstream, (0, 2))
    opening = mirror.hold_threads()
    source = PartSource(upstream, Denied())
    joining = mirror.join(source)
    opening.callback(None)
    assert isinstance(joining.error, Denied)
    assert source.checks == 1
    assert upstream.requests == []


def test_a_reader_that_leaves_while_blocks_are_taken(mirror: PartMirror, upstream: PartUpstream) -> None:
    """The bytes that were taken are kept, and the file of blocks is closed."""
    leave_blocks(mirror, upstream, (0, 3))
    upstream.opening = Deferred()
    client = mirror.read(PartSource(upstream))
    assert mirror.part.stat().st_size == 3 * MEBIBYTE
    client.leave()
    assert mirror.part.stat().st_size == 3 * MEBIBYTE
    assert not mirror.is_downloading
