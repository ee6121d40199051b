"""One download: when it goes on, stops and ends, and what becomes of its file."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred

from dockmirror.interfaces import Answer, ContentKind
from dockmirror.oci.errors import Denied, Unavailable

from .upstream import BUSYBOX, DATA, HALF, SIZE, Mirror, Source, Upstream, finish


class BrokenSource(Source):
    """A source with a mistake in it."""

    async def open(self, offset: int) -> Answer:
        raise ZeroDivisionError


def test_a_download_goes_on_when_its_first_reader_leaves(mirror: Mirror, upstream: Upstream) -> None:
    """The reader who began it may leave; the others are given the blob from the same request."""
    first, second = mirror.read(Source(upstream)), mirror.read(Source(upstream))
    upstream.body.send(1000)
    first.leave()
    assert isinstance(first.outcome, CancelledError)
    upstream.body.finish()
    mirror.turn(times=10)
    assert (second.received, second.outcome) == (DATA, True)
    assert (first.received, upstream.opens) == (DATA[:1000], [0])


def test_a_request_goes_on_when_its_client_leaves(mirror: Mirror, upstream: Upstream) -> None:
    """The first client may leave before the upstream has answered; the others wait for the same answer."""
    upstream.opening = Deferred()
    first, second = mirror.join(Source(upstream)), mirror.join(Source(upstream))
    first.cancel()
    assert isinstance(first.error, CancelledError)
    upstream.opening.callback(None)
    assert second.reader is not None
    second.reader.leave()
    assert upstream.opens == [0]


def test_a_request_without_clients_is_cancelled(mirror: Mirror, upstream: Upstream) -> None:
    """A request is cancelled when all its clients have left, and leaves nothing behind."""
    upstream.opening = Deferred()
    joinings = [mirror.join(Source(upstream)) for _ in range(2)]
    for joining in joinings:
        joining.cancel()
    assert not mirror.is_downloading
    assert os.listdir(mirror.part.parent) == []
    assert upstream.opening.called


def test_a_download_without_readers_is_stopped_and_continued_later(
    mirror: Mirror, upstream: Upstream
) -> None:
    """A download with less than half of the blob stops with its last reader; the next continues its file."""
    client = mirror.read(Source(upstream))
    upstream.body.send(HALF - 1)
    client.leave()
    assert upstream.body.cancelled
    assert not mirror.is_downloading
    assert mirror.part.read_bytes() == DATA[: HALF - 1]
    again = mirror.read(Source(upstream))
    upstream.body.finish()
    mirror.turn(times=10)
    assert (again.received, again.outcome) == (DATA, True)
    assert (upstream.opens, upstream.sent) == ([0, HALF - 1], SIZE)


def test_a_download_continues_without_readers_if_half_is_there(mirror: Mirror, upstream: Upstream) -> None:
    """A download with half of the blob fetches the rest, and links it, although nobody reads it any more."""
    client = mirror.read(Source(upstream))
    upstream.body.send(HALF)
    client.leave()
    assert mirror.is_downloading
    upstream.body.finish()
    assert mirror.blob.read_bytes() == DATA
    assert mirror.contents.links == [(BUSYBOX, mirror.digest, ContentKind.BLOB)]


def test_a_download_continues_without_readers_if_little_is_missing(
    tmp_path: Path, upstream: Upstream
) -> None:
    """A download that lacks less than the threshold is finished, even if that is most of the blob."""
    mirror = Mirror(tmp_path, DATA, finish=SIZE)
    client = mirror.read(Source(upstream))
    upstream.body.send(1)
    client.leave()
    upstream.body.finish()
    assert mirror.blob.read_bytes() == DATA


def test_an_unknown_digest_leaves_no_file(mirror: Mirror, upstream: Upstream) -> None:
    """A digest for which the upstream has no blob leaves nothing on the disk."""
    joining = mirror.join(Source(upstream, Denied("no")))
    assert isinstance(joining.error, Denied)
    assert os.listdir(mirror.part.parent) == []


def test_a_mistake_of_ours_is_logged_and_fails_the_readers(
    mirror: Mirror, upstream: Upstream, log: list[str]
) -> None:
    """An unexpected exception ends the download, is logged with its traceback, and fails the readers."""
    joining = mirror.join(BrokenSource(upstream))
    assert isinstance(joining.error, Unavailable)
    assert "broke" in log[0]
    assert not mirror.is_downloading


def test_a_join_fails_when_no_file_can_be_made(tmp_path: Path, upstream: Upstream, log: list[str]) -> None:
    """A join fails when no partial file can be made: nothing is requested, and the reason is logged once."""
    (tmp_path / "dockmirror").write_bytes(b"")
    mirror = Mirror(tmp_path, DATA)
    joinings = [mirror.join(Source(upstream)) for _ in range(2)]
    assert [type(joining.error) for joining in joinings] == [NotADirectoryError] * 2
    assert (upstream.opens, mirror.is_downloading, len(log)) == ([], False, 1)


def test_readers_are_given_a_blob_that_cannot_be_stored(
    mirror: Mirror, upstream: Upstream, log: list[str]
) -> None:
    """A blob that is right, and cannot be renamed, is delivered in full, and removed."""
    (mirror.root / "docker").write_bytes(b"")
    quick, slow = mirror.read(Source(upstream)), mirror.read(Source(upstream))
    slow.pause()
    upstream.body.finish()
    slow.resume()
    mirror.turn(times=10)
    assert quick.received == slow.received == DATA
    assert (os.listdir(mirror.part.parent), len(log)) == ([], 1)
    assert mirror.contents.links == []


def test_nothing_more_is_read_when_the_disk_has_lost_bytes(mirror: Mirror, upstream: Upstream) -> None:
    """When fsync fails, readers who are not done are cut off, and the blob is not stored."""
    quick, slow = mirror.read(Source(upstream)), mirror.read(Source(upstream))
    slow.pause()
    hashing = mirror.hold_threads()
    upstream.body.finish()
    syncing = mirror.hold_threads()
    hashing.callback(None)
    mirror.turn(times=10)
    syncing.errback(OSError("input/output error"))
    assert (quick.received, type(slow.outcome)) == (DATA, Unavailable)
    assert not mirror.blob.exists()
    assert not mirror.part.exists()


def test_a_link_that_cannot_be_written_is_logged(mirror: Mirror, upstream: Upstream, log: list[str]) -> None:
    """A blob whose link cannot be written is stored and delivered nevertheless."""
    mirror.contents.full = True
    client = mirror.read(Source(upstream))
    finish(upstream, mirror)
    assert client.outcome is True
    assert mirror.blob.exists()
    assert "docker.io/library/busybox" in log[0]
