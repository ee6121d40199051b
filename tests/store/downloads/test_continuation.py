"""A blob from an offset on, as each reader fetches it by itself when the disk is full."""

from __future__ import annotations

import os

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from dockmirror.body.verified import TAIL_HOLDBACK, CorruptContent
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Denied
from dockmirror.store.downloads.context import DiskFullFallback

from .upstream import (
    DATA,
    HALF,
    PIECE,
    SIZE,
    FileClient,
    Mirror,
    Source,
    Upstream,
    finish,
    full,
    open_files,
    part,
)

ENDS = [(5, HALF), (HALF + 1, SIZE - TAIL_HOLDBACK - 1), (SIZE - 20, SIZE - 11), (SIZE - 9, SIZE - 1)]


@pytest.mark.parametrize("taken", [0, 1, HALF, SIZE - TAIL_HOLDBACK, SIZE - 10])
@pytest.mark.parametrize("told", [True, False])
def test_readers_go_on_by_themselves_when_the_disk_is_full(
    mirror: Mirror, upstream: Upstream, log: list[str], taken: int, told: bool
) -> None:
    """Each reader goes on from where the file ends, and is given the right bytes; the file is removed."""
    upstream.size = SIZE if told else None
    clients = [mirror.read(Source(upstream)) for _ in range(2)]
    early = mirror.read(Source(upstream), part(0, 0))
    ranged = [mirror.read(Source(upstream), part(*ends)) for ends in ENDS]
    upstream.body.send(10)
    clients[1].pause()
    with full(taken):
        upstream.body.send()
    assert upstream.bodies[0].cancelled
    assert os.listdir(mirror.part.parent) == []
    assert len(log) == 1
    mirror.turn(times=10)
    clients[1].resume()
    mirror.turn(times=10)
    assert open_files(mirror.root) == []
    finish(upstream, mirror)
    assert [client.received for client in clients] == [DATA] * 2
    assert [client.outcome for client in [*clients, early, *ranged]] == [True] * 7
    assert [client.received for client in ranged] == [DATA[first : last + 1] for first, last in ENDS]
    assert upstream.opens.count(10 + max(0, taken - 10) // PIECE * PIECE) >= 2
    assert not mirror.is_downloading
    assert not mirror.blob.exists()


def test_a_reader_that_goes_on_by_itself_is_given_no_wrong_blob(mirror: Mirror, upstream: Upstream) -> None:
    """A reader that goes on by itself is cut off before the end of a blob that is wrong after all."""
    client = mirror.read(Source(upstream))
    with full(HALF):
        upstream.body.send()
    mirror.turn(times=10)
    upstream.body.send_these(os.urandom(SIZE - HALF)).end()
    assert isinstance(client.outcome, CorruptContent)
    assert HALF < len(client.received) <= SIZE - TAIL_HOLDBACK


def test_a_reader_that_goes_on_by_itself_is_given_no_longer_blob(mirror: Mirror, upstream: Upstream) -> None:
    """A reader that goes on by itself is cut off if the blob is too long."""
    client = mirror.read(Source(upstream))
    with full(HALF):
        upstream.body.send()
    mirror.turn(times=10)
    upstream.body.send_these(DATA[HALF:] + b"x").end()
    assert isinstance(client.outcome, CorruptContent)


def test_a_reader_that_goes_on_by_itself_is_resumed(mirror: Mirror, upstream: Upstream) -> None:
    """A reader that goes on by itself is resumed where the upstream breaks off."""
    client = mirror.read(Source(upstream))
    with full(HALF):
        upstream.body.send()
    mirror.turn(times=10)
    upstream.body.send(1000).break_off()
    mirror.turn(times=10)
    finish(upstream, mirror)
    assert (client.received, client.outcome) == (DATA, True)
    assert upstream.opens == [0, HALF, HALF + 1000]


def test_a_reader_that_is_refused_cannot_go_on_by_itself(mirror: Mirror, upstream: Upstream) -> None:
    """A reader that is refused the rest is cut off with the reason behind what the disk took."""
    source = Source(upstream)
    client = mirror.read(source)
    source.refusal = Denied()
    with full(HALF):
        upstream.body.send()
    mirror.turn(times=10)
    assert isinstance(client.outcome, Denied)
    assert client.received == DATA[:HALF]


def test_a_reader_that_goes_on_by_itself_may_leave(mirror: Mirror, upstream: Upstream) -> None:
    """The request of a reader that goes on by itself is cancelled when it leaves."""
    client = mirror.read(Source(upstream))
    with full(HALF):
        upstream.body.send()
    mirror.turn(times=10)
    upstream.body.send(10)
    client.leave()
    assert isinstance(client.outcome, CancelledError)
    assert upstream.body.cancelled


def test_a_reader_that_goes_on_by_itself_paces_the_upstream(mirror: Mirror, upstream: Upstream) -> None:
    """A reader that goes on by itself pauses and resumes the upstream."""
    client = mirror.read(Source(upstream))
    with full(HALF):
        upstream.body.send()
    mirror.turn(times=10)
    client.pause()
    assert upstream.body.paused
    client.resume()
    assert not upstream.body.paused
    finish(upstream, mirror)
    assert client.received == DATA


def test_a_file_consumer_is_written_what_the_disk_did_not_take(mirror: Mirror, upstream: Upstream) -> None:
    """A file consumer is sent what the disk took, and written the rest."""
    client = FileClient(SIZE)
    mirror.read(Source(upstream), client=client)
    with full(HALF):
        upstream.body.send()
    finish(upstream, mirror)
    assert (client.received, client.outcome) == (DATA, True)
    assert client.sent == HALF // PIECE * PIECE


def test_the_rest_of_a_blob_is_not_requested_before_it_is_delivered(upstream: Upstream) -> None:
    """A content that is discarded instead has asked the upstream for nothing."""
    verifier = Digest.of(DATA).verifier()
    fallback = DiskFullFallback(verifier, HALF, b"", SIZE, Clock())
    fallback.content(Source(upstream), HALF, None).discard()
    assert upstream.opens == []
