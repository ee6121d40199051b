"""Readers that fetch the rest of a blob by themselves because the disk is full."""

from __future__ import annotations

import os

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from dockmirror.body.bodies import TAIL_HOLDBACK, CorruptContent
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Denied
from dockmirror.store.downloads.context import DiskFullFallback

from .upstream import (
    DATA,
    HALF,
    PIECE,
    SIZE,
    WRONG,
    FileClient,
    Mirror,
    Source,
    Upstream,
    finish,
    full,
    open_files,
    part,
    read_until_full,
)

ENDS = [(5, HALF), (HALF + 1, SIZE - TAIL_HOLDBACK - 1), (SIZE - 20, SIZE - 11), (SIZE - 9, SIZE - 1)]


@pytest.mark.parametrize("size", [0, 1, HALF, SIZE - TAIL_HOLDBACK, SIZE - 10])
@pytest.mark.parametrize("has_size", [True, False])
def test_readers_go_on_alone_on_a_full_disk(
    mirror: Mirror, upstream: Upstream, log: list[str], size: int, has_size: bool
) -> None:
    """Each reader goes on from where the file ends, and is given the right bytes; the file is removed."""
    upstream.size = SIZE if has_size else None
    clients = [mirror.read(Source(upstream)) for _ in range(2)]
    early = mirror.read(Source(upstream), part(0, 0))
    ranged = [mirror.read(Source(upstream), part(*ends)) for ends in ENDS]
    upstream.body.advance(10)
    clients[1].pause()
    with full(size):
        upstream.body.advance()
    assert upstream.bodies[0].cancelled
    assert os.listdir(mirror.part.parent) == []
    assert len(log) == 1
    mirror.turn(times=10)
    clients[1].resume()
    mirror.turn(times=10)
    assert open_files(mirror.root) == []
    finish(upstream, mirror)
    assert [client.data for client in clients] == [DATA] * 2
    assert [client.outcome for client in [*clients, early, *ranged]] == [True] * 7
    assert [client.data for client in ranged] == [DATA[first : last + 1] for first, last in ENDS]
    assert upstream.opens.count(10 + max(0, size - 10) // PIECE * PIECE) >= 2
    assert not mirror.is_downloading
    assert not mirror.blob.exists()


@pytest.mark.parametrize("rest", [WRONG[HALF:], DATA[HALF:] + b"x"])
def test_a_reader_alone_is_given_no_wrong_blob(mirror: Mirror, upstream: Upstream, rest: bytes) -> None:
    """A reader that goes on by itself is cut off before the end of a blob that is wrong or too long."""
    client = read_until_full(mirror, upstream)
    upstream.body.send_these(rest).end()
    assert isinstance(client.outcome, CorruptContent)
    assert HALF < len(client.data) <= SIZE - TAIL_HOLDBACK


def test_a_reader_alone_is_resumed(mirror: Mirror, upstream: Upstream) -> None:
    """A reader that goes on by itself is resumed where the upstream breaks off."""
    client = read_until_full(mirror, upstream)
    upstream.body.advance(1000).break_off()
    mirror.turn(times=10)
    finish(upstream, mirror)
    assert (client.data, client.outcome) == (DATA, True)
    assert upstream.opens == [0, HALF, HALF + 1000]


def test_a_reader_that_is_refused_cannot_go_on_alone(mirror: Mirror, upstream: Upstream) -> None:
    """A reader that is refused the rest is cut off with the reason behind what the disk took."""
    source = Source(upstream)
    client = mirror.read(source)
    source.refusal = Denied()
    with full(HALF):
        upstream.body.advance()
    mirror.turn(times=10)
    assert isinstance(client.outcome, Denied)
    assert client.data == DATA[:HALF]


def test_a_reader_alone_paces_the_upstream(mirror: Mirror, upstream: Upstream) -> None:
    """A reader that goes on by itself pauses and resumes the upstream, and cancels it when it leaves."""
    client = read_until_full(mirror, upstream)
    client.pause()
    assert upstream.body.paused
    client.resume()
    assert not upstream.body.paused
    client.leave()
    assert isinstance(client.outcome, CancelledError)
    assert upstream.body.cancelled


def test_a_file_consumer_is_written_what_the_disk_did_not_take(mirror: Mirror, upstream: Upstream) -> None:
    """A file consumer is sent what the disk took, and written the rest."""
    client = FileClient(SIZE)
    read_until_full(mirror, upstream, client=client)
    finish(upstream, mirror)
    assert (client.data, client.outcome, sum(client.sent)) == (DATA, True, HALF // PIECE * PIECE)


def test_the_rest_of_a_blob_is_not_requested_before_it_is_delivered(upstream: Upstream) -> None:
    """A content that is discarded instead has asked the upstream for nothing."""
    verifier = Digest.of(DATA).verifier()
    fallback = DiskFullFallback(verifier, HALF, b"", SIZE, Clock())
    fallback.content(Source(upstream), HALF, None).discard()
    assert upstream.opens == []


def test_a_full_disk_is_logged_once(mirror: Mirror, upstream: Upstream, log: list[str]) -> None:
    """A full disk is logged once, until something was stored again."""
    for _ in range(3):
        client = read_until_full(mirror, upstream)
        finish(upstream, mirror)
        assert (client.data, client.outcome) == (DATA, True)
    assert len(log) == 1
    mirror.read(Source(upstream))
    finish(upstream, mirror)
    mirror.blob.unlink()
    read_until_full(mirror, upstream).leave()
    assert len(log) == 2
