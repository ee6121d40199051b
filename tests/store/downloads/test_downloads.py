"""Downloads: one for each blob and registry, with any number of readers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from dockmirror.body.bodies import TAIL_HOLDBACK, CorruptContent
from dockmirror.interfaces import Answer, IDownloadReader, IDownloads, ISource
from dockmirror.oci.errors import Denied, Unavailable
from dockmirror.oci.request import Repository
from dockmirror.status import DownloadStatus
from dockmirror.store.downloads.context import DownloadStats

from .upstream import (
    ALPINE,
    BUSYBOX,
    DATA,
    DESCRIPTOR,
    HALF,
    SIZE,
    SPOILT,
    WRONG,
    Client,
    HeldCheck,
    Mirror,
    Source,
    Upstream,
    all_closed,
    finish,
    leave_part,
    part,
)


def test_the_interfaces_are_provided(mirror: Mirror, upstream: Upstream) -> None:
    reader = mirror.enter(Source(upstream))
    verifyObject(IDownloads, mirror.downloads)
    verifyObject(IDownloadReader, reader)
    verifyObject(ISource, Source(upstream))
    reader.leave()


def test_a_blob_is_delivered_as_it_comes_and_then_stored(mirror: Mirror, upstream: Upstream) -> None:
    """A blob is delivered as it comes, but its last 64 KiB when the digest is right; then it is linked."""
    client = mirror.read(Source(upstream))
    upstream.body.advance(1000)
    assert client.data == DATA[:1000]
    upstream.body.advance()
    mirror.turn(times=10)
    assert client.data == DATA[: SIZE - TAIL_HOLDBACK]
    upstream.body.end()
    mirror.turn(times=2)
    assert (client.data, client.outcome) == (DATA, True)
    assert mirror.blob.read_bytes() == DATA
    assert mirror.contents.linked == [BUSYBOX]
    assert os.listdir(mirror.part.parent) == []
    assert not mirror.is_downloading
    assert (upstream.opens, upstream.checks, mirror.written) == ([0], 0, SIZE)


def test_a_blob_that_two_clients_ask_for_is_fetched_once(mirror: Mirror, upstream: Upstream) -> None:
    """A blob that two clients ask for is fetched once, and linked for the repositories of both."""
    first = mirror.read(Source(upstream))
    upstream.body.advance(HALF)
    source = Source(upstream)
    reader = mirror.enter(source, ALPINE)
    assert (reader.joined, reader.size, source.checks, source.opens) == (True, SIZE, 1, 0)
    second = Client().read(reader, DESCRIPTOR)
    assert second.data == DATA[:HALF]
    finish(upstream, mirror)
    assert first.data == second.data == DATA
    assert upstream.opens == [0]
    assert set(mirror.contents.linked) == {BUSYBOX, ALPINE}


def test_clients_are_admitted_when_the_upstream_answers(mirror: Mirror, upstream: Upstream) -> None:
    """All clients are admitted when the upstream has answered, and know the size."""
    upstream.opening = Deferred()
    joinings = [mirror.join(Source(upstream)) for _ in range(3)]
    assert [joining.is_admitted for joining in joinings] == [False] * 3
    upstream.opening.callback(None)
    assert [joining.reader.size for joining in joinings] == [SIZE] * 3
    assert (upstream.opens, upstream.checks) == ([0], 2)
    for joining in joinings:
        joining.reader.leave()


def test_a_client_that_the_upstream_refuses_cannot_join(mirror: Mirror, upstream: Upstream) -> None:
    """A client that is refused fails alone: it is given nothing, and its repository is not linked."""
    client = mirror.read(Source(upstream))
    upstream.body.advance(HALF)
    assert isinstance(mirror.join(Source(upstream, Denied("no")), ALPINE).error, Denied)
    finish(upstream, mirror)
    assert (client.outcome, mirror.contents.linked) == (True, [BUSYBOX])
    assert isinstance(mirror.join(Source(upstream, Denied("no")), ALPINE).error, Denied)
    assert mirror.contents.linked == [BUSYBOX]


def test_registries_do_not_share_downloads(mirror: Mirror, upstream: Upstream) -> None:
    """A client of one registry does not join another's download; the finished blob serves all registries."""
    first = mirror.read(Source(upstream))
    upstream.body.advance(HALF)
    other = Upstream(DATA)
    joining = mirror.join(Source(other), Repository("ghcr.io/busybox"), "ghcr.io")
    assert not joining.reader.joined
    second = Client().read(joining.reader, DESCRIPTOR)
    finish(upstream, mirror)
    assert (first.outcome, second.data, other.opens) == (True, b"", [0])
    third = mirror.join(Source(upstream), Repository("quay.io/busybox"), "quay.io")
    assert third.reader.joined
    third.reader.leave()
    other.body.finish()
    mirror.turn(times=10)
    assert (second.data, mirror.blob.read_bytes()) == (DATA, DATA)


def test_a_finished_blob_is_read_by_those_who_are_granted_it(mirror: Mirror, upstream: Upstream) -> None:
    """A blob that is stored is read by clients to whom the upstream grants it, and linked for them."""
    mirror.read(Source(upstream))
    finish(upstream, mirror)
    reader = mirror.enter(Source(upstream), ALPINE)
    assert (reader.joined, reader.size) == (True, SIZE)
    client = Client().read(reader, DESCRIPTOR)
    mirror.turn(times=10)
    assert (client.data, client.outcome, upstream.opens) == (DATA, True, [0])
    assert (mirror.contents.linked, mirror.part.exists()) == ([BUSYBOX, ALPINE], False)


@pytest.mark.parametrize("is_right", [True, False])
def test_a_download_may_end_during_a_check(mirror: Mirror, upstream: Upstream, is_right: bool) -> None:
    """A client whose check outlasts the download reads it and is linked, or is status why it failed."""
    mirror.read(Source(upstream))
    joining = mirror.join(source := HeldCheck(upstream), ALPINE)
    upstream.body.send_these(DATA if is_right else DATA + b"x").end()
    mirror.turn(times=10)
    assert not mirror.is_downloading
    assert mirror.contents.linked == [BUSYBOX] * is_right
    source.answer.callback(None)
    if not is_right:
        assert isinstance(joining.error, CorruptContent)
        return
    client = Client().read(joining.reader, DESCRIPTOR)
    mirror.turn(times=10)
    assert (client.data, client.outcome) == (DATA, True)
    assert mirror.contents.linked == [BUSYBOX, ALPINE]


def test_at_most_four_downloads_continue_without_readers(tmp_path: Path) -> None:
    """The fifth download without readers is stopped; one that has a reader again does not count."""
    with all_closed(tmp_path):
        blobs = [DATA[:200000] + bytes([i]) for i in range(6)]
        mirrors = [Mirror(tmp_path, blob) for blob in blobs]
        for mirror in mirrors[1:]:
            mirror.downloads = mirrors[0].downloads
        upstreams = [Upstream(blob) for blob in blobs]
        for mirror, upstream in zip(mirrors[:5], upstreams[:5], strict=True):
            client = mirror.read(Source(upstream))
            upstream.body.advance(150000)
            client.leave()
        assert [upstream.body.cancelled for upstream in upstreams[:5]] == [False] * 4 + [True]
        again = mirrors[0].read(Source(upstreams[0]))
        client = mirrors[5].read(Source(upstreams[5]))
        upstreams[5].body.advance(150000)
        client.leave()
        assert not upstreams[5].body.cancelled
        for upstream in [*upstreams[:4], upstreams[5]]:
            upstream.body.finish()
        mirrors[0].turn(times=10)
        assert again.outcome is True


@pytest.mark.parametrize("partial", [b"", DATA[:HALF]])
def test_the_pace_counts_from_the_beginning(mirror: Mirror, upstream: Upstream, partial: bytes) -> None:
    """The pace is known when bytes have come; bytes of an earlier process do not count."""
    mirror.turn(5)
    leave_part(mirror, partial)
    client = mirror.read(Source(upstream))
    assert mirror.downloads.active()[0].pace is None
    mirror.turn(2)
    upstream.body.advance(1000)
    assert mirror.downloads.active()[0].pace == 500
    client.leave()
    finish(upstream, mirror)


def test_active_downloads_are_listed_with_their_progress(mirror: Mirror, upstream: Upstream) -> None:
    """Active downloads are listed with their pace and the repositories that were granted them."""
    upstream.opening = Deferred()
    joining = mirror.join(Source(upstream))
    assert mirror.downloads.active() == []
    upstream.opening.callback(None)
    Client().read(joining.reader, DESCRIPTOR)
    status = DownloadStatus("docker.io", str(mirror.digest), ("docker.io/library/busybox",), 0, SIZE, None)
    assert mirror.downloads.active() == [status]
    mirror.turn(2)
    upstream.body.advance(100000)
    mirror.enter(Source(upstream), ALPINE).leave()
    names = ("docker.io/library/alpine", "docker.io/library/busybox")
    assert mirror.downloads.active() == [evolve(status, repositories=names, held=100000, pace=50000.0)]
    finish(upstream, mirror)
    assert mirror.downloads.active() == []


@pytest.mark.parametrize("size", [SIZE, None])
@pytest.mark.parametrize("data", [WRONG, DATA[:-1], DATA + b"x", SPOILT, b""])
def test_a_blob_that_came_wrong_is_refused_for_a_minute(
    mirror: Mirror, upstream: Upstream, log: list[str], data: bytes, size: int | None
) -> None:
    """Wrong bytes are neither completed nor stored; that registry is not asked for the blob for a minute."""
    upstream.size = size
    client, early = mirror.read(Source(upstream)), mirror.read(Source(upstream), part(0, 9))
    late = mirror.read(Source(upstream), part(SIZE - 9, SIZE - 1))
    upstream.body.send_these(data).end()
    mirror.turn(times=10)
    assert upstream.body.cancelled == (size is not None and len(data) > SIZE)
    assert isinstance(client.outcome, CorruptContent)
    assert data.startswith(client.data)
    assert len(client.data) <= max(0, (size or len(data)) - TAIL_HOLDBACK)
    assert (len(late.data), type(late.outcome)) == (0, CorruptContent)
    assert early.outcome is True or isinstance(early.outcome, CorruptContent)
    assert (mirror.blob.exists(), os.listdir(mirror.part.parent), mirror.contents.linked) == (False, [], [])
    assert any("docker.io" in line and str(mirror.digest) in line for line in log)
    assert isinstance(mirror.join(Source(upstream)).error, CorruptContent)
    assert (upstream.opens, mirror.context.stats) == ([0], DownloadStats(wrong=1))
    assert mirror.written == 0
    mirror.turn(60)
    client = mirror.read(Source(upstream))
    finish(upstream, mirror)
    assert client.data == DATA


def test_a_clock_that_is_set_back_does_not_prolong_that_minute(mirror: Mirror, upstream: Upstream) -> None:
    """A blob that came wrong is asked for again as soon as the clock shows an earlier time."""
    mirror.turn(3600)
    mirror.read(Source(upstream))
    upstream.body.send_these(WRONG).end()
    mirror.clock.rightNow = 0.0
    client = mirror.read(Source(upstream))
    finish(upstream, mirror)
    assert client.data == DATA


class BrokenSource(Source):
    """A source with a mistake in it."""

    async def open(self, offset: int) -> Answer:
        raise ZeroDivisionError


def test_a_download_goes_on_when_its_first_reader_leaves(mirror: Mirror, upstream: Upstream) -> None:
    """The reader who began it may leave; the others are given the blob from the same request."""
    first, second = mirror.read(Source(upstream)), mirror.read(Source(upstream))
    upstream.body.advance(1000)
    first.leave()
    assert isinstance(first.outcome, CancelledError)
    finish(upstream, mirror)
    assert (second.data, second.outcome) == (DATA, True)
    assert (first.data, upstream.opens) == (DATA[:1000], [0])


@pytest.mark.parametrize("leaving", [1, 2])
def test_a_request_goes_on_while_a_client_waits(mirror: Mirror, upstream: Upstream, leaving: int) -> None:
    """Clients may leave before the upstream has answered; the last one cancels the request."""
    upstream.opening = Deferred()
    joinings = [mirror.join(Source(upstream)) for _ in range(2)]
    for joining in joinings[:leaving]:
        joining.cancel()
        assert isinstance(joining.error, CancelledError)
    assert mirror.is_downloading == (leaving == 1) != upstream.opening.called
    if leaving == 1:
        upstream.opening.callback(None)
        joinings[1].reader.leave()
    assert (upstream.opens, os.listdir(mirror.part.parent)) == ([0], [])


def test_a_download_without_readers_is_continued_later(mirror: Mirror, upstream: Upstream) -> None:
    """A download with less than half of the blob stops with its last reader; the next continues its file."""
    client = mirror.read(Source(upstream))
    upstream.body.advance(HALF - 1)
    client.leave()
    assert upstream.body.cancelled
    assert not mirror.is_downloading
    assert mirror.part.read_bytes() == DATA[: HALF - 1]
    again = mirror.read(Source(upstream))
    finish(upstream, mirror)
    assert (again.data, again.outcome) == (DATA, True)
    assert (upstream.opens, upstream.sent) == ([0, HALF - 1], SIZE)


@pytest.mark.parametrize(("sent", "threshold"), [(HALF, 0), (1, SIZE)])
def test_a_download_may_go_on_without_readers(
    tmp_path: Path, upstream: Upstream, sent: int, threshold: int
) -> None:
    """A download with half of the blob, or that lacks less than the threshold, is finished and linked."""
    mirror = Mirror(tmp_path, DATA, finish=threshold)
    client = mirror.read(Source(upstream))
    upstream.body.advance(sent)
    client.leave()
    assert mirror.is_downloading
    upstream.body.finish()
    assert mirror.blob.read_bytes() == DATA
    assert mirror.contents.linked == [BUSYBOX]


def test_an_unknown_digest_leaves_no_file(mirror: Mirror, upstream: Upstream) -> None:
    """A digest for which the upstream has no blob leaves nothing on the disk."""
    joining = mirror.join(Source(upstream, Denied("no")))
    assert isinstance(joining.error, Denied)
    assert os.listdir(mirror.part.parent) == []


def test_a_mistake_of_ours_fails_the_readers(mirror: Mirror, upstream: Upstream, log: list[str]) -> None:
    """An unexpected exception ends the download, is logged with its traceback, and fails the readers."""
    joining = mirror.join(BrokenSource(upstream))
    assert isinstance(joining.error, Unavailable)
    assert "failed unexpectedly" in log[0]
    assert not mirror.is_downloading


def test_a_join_fails_when_no_file_can_be_made(tmp_path: Path, upstream: Upstream, log: list[str]) -> None:
    """A join fails when no partial file can be made: nothing is requested, and the reason is logged once."""
    (tmp_path / "dockmirror").write_bytes(b"")
    mirror = Mirror(tmp_path, DATA)
    joinings = [mirror.join(Source(upstream)) for _ in range(2)]
    assert [type(joining.error) for joining in joinings] == [NotADirectoryError] * 2
    assert (upstream.opens, mirror.is_downloading, len(log)) == ([], False, 1)


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
    assert (quick.data, type(slow.outcome)) == (DATA, Unavailable)
    assert not mirror.blob.exists()
    assert not mirror.part.exists()


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_blob_that_cannot_be_linked_is_delivered(
    mirror: Mirror, upstream: Upstream, log: list[str], is_stored: bool
) -> None:
    """A blob that cannot be linked, or not even renamed and is removed then, is delivered in full."""
    mirror.contents.full = True
    if not is_stored:
        (mirror.root / "docker").write_bytes(b"")
    quick, slow = mirror.read(Source(upstream)), mirror.read(Source(upstream))
    slow.pause()
    upstream.body.finish()
    slow.resume()
    mirror.turn(times=10)
    assert (quick.data, slow.data, slow.outcome) == (DATA, DATA, True)
    assert (os.listdir(mirror.part.parent), mirror.contents.linked) == ([], [])
    assert mirror.blob.exists() == is_stored == ("docker.io/library/busybox" in log[0])
