"""Downloads: one for each blob and registry, with any number of readers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from dockmirror.body.verified import TAIL_HOLDBACK, CorruptContent
from dockmirror.interfaces import ContentKind, IContentStore, IDownloadReader, IDownloads, ISource
from dockmirror.oci.errors import Denied
from dockmirror.oci.reference import Repository
from dockmirror.status.status_values import DownloadStatus
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
    leave_part,
    part,
)


def test_the_interfaces_are_provided(mirror: Mirror, upstream: Upstream) -> None:
    """The downloads, their readers and the doubles of this test provide their interfaces."""
    reader = mirror.enter(Source(upstream))
    verifyObject(IDownloads, mirror.downloads)
    verifyObject(IDownloadReader, reader)
    verifyObject(ISource, Source(upstream))
    verifyObject(IContentStore, mirror.contents)
    reader.leave()


def test_a_blob_is_delivered_as_it_comes_and_then_stored(mirror: Mirror, upstream: Upstream) -> None:
    """A blob is delivered as it comes, but its last 64 KiB when the digest is right; then it is linked."""
    client = mirror.read(Source(upstream))
    upstream.body.send(1000)
    assert client.received == DATA[:1000]
    upstream.body.send()
    mirror.turn(times=10)
    assert client.received == DATA[: SIZE - TAIL_HOLDBACK]
    upstream.body.end()
    mirror.turn(times=2)
    assert (client.received, client.outcome) == (DATA, True)
    assert mirror.blob.read_bytes() == DATA
    assert mirror.contents.links == [(BUSYBOX, mirror.digest, ContentKind.BLOB)]
    assert os.listdir(mirror.part.parent) == []
    assert not mirror.is_downloading
    assert (upstream.opens, upstream.checks, mirror.grown) == ([0], 0, SIZE)


def test_a_blob_that_two_clients_ask_for_is_fetched_once(mirror: Mirror, upstream: Upstream) -> None:
    """A blob that two clients ask for is fetched once, and linked for the repositories of both."""
    first = mirror.read(Source(upstream))
    upstream.body.send(HALF)
    source = Source(upstream)
    reader = mirror.enter(source, ALPINE)
    assert (reader.joined, reader.size, source.checks, source.opens) == (True, SIZE, 1, 0)
    second = Client().read(reader, DESCRIPTOR)
    assert second.received == DATA[:HALF]
    upstream.body.finish()
    mirror.turn(times=10)
    assert first.received == second.received == DATA
    assert upstream.opens == [0]
    assert {repository for repository, _, _ in mirror.contents.links} == {BUSYBOX, ALPINE}


def test_the_client_that_begins_a_download_is_not_checked(mirror: Mirror, upstream: Upstream) -> None:
    """The client that begins a download is given the blob by its own source: it needs no check."""
    reader = mirror.enter(Source(upstream))
    assert not reader.joined
    assert upstream.checks == 0
    reader.leave()


def test_clients_are_admitted_when_the_upstream_answers(mirror: Mirror, upstream: Upstream) -> None:
    """All clients are admitted when the upstream has answered, and know the size."""
    upstream.opening = Deferred()
    joinings = [mirror.join(Source(upstream)) for _ in range(3)]
    assert [joining.reader for joining in joinings] == [None] * 3
    upstream.opening.callback(None)
    assert [joining.reader and joining.reader.size for joining in joinings] == [SIZE] * 3
    assert (upstream.opens, upstream.checks) == ([0], 2)
    for joining in joinings:
        assert joining.reader is not None
        joining.reader.leave()


def test_a_client_that_the_upstream_refuses_cannot_join(mirror: Mirror, upstream: Upstream) -> None:
    """A client that is refused fails alone: it is given nothing, and its repository is not linked."""
    first = mirror.read(Source(upstream))
    upstream.body.send(HALF)
    joining = mirror.join(Source(upstream, Denied("no")), ALPINE)
    assert isinstance(joining.error, Denied)
    upstream.body.finish()
    mirror.turn(times=10)
    assert first.outcome is True
    assert [repository for repository, _, _ in mirror.contents.links] == [BUSYBOX]


def test_registries_do_not_share_downloads(mirror: Mirror, upstream: Upstream) -> None:
    """A client of one registry does not join another's download; the finished blob serves all registries."""
    first = mirror.read(Source(upstream))
    upstream.body.send(HALF)
    other = Upstream(DATA)
    joining = mirror.join(Source(other), Repository("ghcr.io/busybox"), "ghcr.io")
    assert joining.reader is not None
    assert not joining.reader.joined
    second = Client().read(joining.reader, DESCRIPTOR)
    upstream.body.finish()
    mirror.turn(times=10)
    assert (first.outcome, second.received, other.opens) == (True, b"", [0])
    third = mirror.join(Source(upstream), Repository("quay.io/busybox"), "quay.io")
    assert third.reader is not None
    assert third.reader.joined
    third.reader.leave()
    other.body.finish()
    mirror.turn(times=10)
    assert (second.received, mirror.blob.read_bytes()) == (DATA, DATA)


def test_a_finished_blob_is_read_and_linked_by_those_who_are_granted_it(
    mirror: Mirror, upstream: Upstream
) -> None:
    """A blob that is stored is read by clients to whom the upstream grants it, and linked for them."""
    mirror.read(Source(upstream))
    upstream.body.finish()
    mirror.turn(times=10)
    refused = mirror.join(Source(upstream, Denied("no")), ALPINE)
    assert isinstance(refused.error, Denied)
    assert len(mirror.contents.links) == 1
    reader = mirror.enter(Source(upstream), ALPINE)
    assert (reader.joined, reader.size) == (True, SIZE)
    client = Client().read(reader, DESCRIPTOR)
    mirror.turn(times=10)
    assert (client.received, client.outcome, upstream.opens) == (DATA, True, [0])
    assert mirror.contents.links[1:] == [(ALPINE, mirror.digest, ContentKind.BLOB)]
    assert not mirror.part.exists()


def test_a_download_may_finish_while_a_client_is_checked(mirror: Mirror, upstream: Upstream) -> None:
    """A client whose check outlasts the download reads what has come, and its repository is linked."""
    mirror.read(Source(upstream))
    source = HeldCheck(upstream)
    joining = mirror.join(source, ALPINE)
    upstream.body.finish()
    mirror.turn(times=10)
    assert not mirror.is_downloading
    assert [repository for repository, _, _ in mirror.contents.links] == [BUSYBOX]
    source.answer.callback(None)
    assert joining.reader is not None
    client = Client().read(joining.reader, DESCRIPTOR)
    mirror.turn(times=10)
    assert (client.received, client.outcome) == (DATA, True)
    assert [repository for repository, _, _ in mirror.contents.links] == [BUSYBOX, ALPINE]


def test_a_download_may_fail_while_a_client_is_checked(mirror: Mirror, upstream: Upstream) -> None:
    """A client whose check outlasts the download is told why it failed."""
    source = HeldCheck(upstream)
    first, joining = mirror.read(Source(upstream)), mirror.join(source)
    upstream.body.send_these(DATA + b"x")
    source.answer.callback(None)
    assert isinstance(first.outcome, CorruptContent)
    assert isinstance(joining.error, CorruptContent)


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
            upstream.body.send(150000)
            client.leave()
        assert [upstream.body.cancelled for upstream in upstreams[:5]] == [False] * 4 + [True]
        again = mirrors[0].read(Source(upstreams[0]))
        client = mirrors[5].read(Source(upstreams[5]))
        upstreams[5].body.send(150000)
        client.leave()
        assert not upstreams[5].body.cancelled
        for upstream in [*upstreams[:4], upstreams[5]]:
            upstream.body.finish()
        mirrors[0].turn(times=10)
        assert again.outcome is True


def test_the_pace_counts_from_the_beginning_of_the_download(mirror: Mirror, upstream: Upstream) -> None:
    """The pace is known when bytes have come and time has passed since the file was opened."""
    mirror.turn(5)
    client = mirror.read(Source(upstream))
    upstream.body.send(1000)
    assert mirror.downloads.active()[0].pace is None
    mirror.turn(2)
    assert mirror.downloads.active()[0].pace == 500
    client.leave()


def test_the_pace_of_a_continued_download_counts_what_has_come_since(
    mirror: Mirror, upstream: Upstream
) -> None:
    """Bytes that were there before have not come at any pace."""
    mirror.turn(5)
    leave_part(mirror, DATA[:HALF])
    client = mirror.read(Source(upstream))
    mirror.turn(2)
    assert mirror.downloads.active()[0].pace is None
    upstream.body.send(1000)
    assert mirror.downloads.active()[0].pace == 500
    client.leave()
    upstream.body.finish()


def test_active_downloads_are_listed_with_their_progress(mirror: Mirror, upstream: Upstream) -> None:
    """Active downloads are listed with their pace and the repositories that were granted them."""
    upstream.opening = Deferred()
    joining = mirror.join(Source(upstream))
    assert mirror.downloads.active() == []
    upstream.opening.callback(None)
    assert joining.reader is not None
    Client().read(joining.reader, DESCRIPTOR)
    told = DownloadStatus("docker.io", str(mirror.digest), ("docker.io/library/busybox",), 0, SIZE, None)
    assert mirror.downloads.active() == [told]
    mirror.turn(2)
    upstream.body.send(100000)
    mirror.enter(Source(upstream), ALPINE).leave()
    names = ("docker.io/library/alpine", "docker.io/library/busybox")
    assert mirror.downloads.active() == [evolve(told, repositories=names, held=100000, pace=50000.0)]
    upstream.body.finish()
    mirror.turn(times=10)
    assert mirror.downloads.active() == []


@pytest.mark.parametrize("bytes_sent", [WRONG, DATA[:-1], DATA + b"x", SPOILT, b""])
def test_a_blob_that_came_wrong_is_refused_for_a_minute(
    mirror: Mirror, upstream: Upstream, log: list[str], bytes_sent: bytes
) -> None:
    """Wrong bytes are neither completed nor stored; that registry is not asked for the blob for a minute."""
    whole, early = mirror.read(Source(upstream)), mirror.read(Source(upstream), part(0, 9))
    late = mirror.read(Source(upstream), part(SIZE - 9, SIZE - 1))
    upstream.body.send_these(bytes_sent).end()
    mirror.turn(times=10)
    assert isinstance(whole.outcome, CorruptContent)
    assert whole.received == bytes_sent[: SIZE - TAIL_HOLDBACK][: len(whole.received)]
    assert (len(late.received), type(late.outcome)) == (0, CorruptContent)
    assert early.outcome is True or isinstance(early.outcome, CorruptContent)
    assert not mirror.blob.exists()
    assert os.listdir(mirror.part.parent) == []
    assert mirror.contents.links == []
    assert any("docker.io" in line and str(mirror.digest) in line for line in log)
    assert isinstance(mirror.join(Source(upstream)).error, CorruptContent)
    assert upstream.opens == [0]
    assert mirror.context.stats == DownloadStats(wrong=1)
    mirror.turn(60)
    client = mirror.read(Source(upstream))
    upstream.body.finish()
    mirror.turn(times=10)
    assert client.received == DATA


def test_a_clock_that_is_set_back_does_not_prolong_that_minute(mirror: Mirror, upstream: Upstream) -> None:
    """A blob that came wrong is asked for again as soon as the clock shows an earlier time."""
    mirror.turn(3600)
    mirror.read(Source(upstream))
    upstream.body.send_these(WRONG).end()
    mirror.turn(times=10)
    mirror.clock.rightNow = 0.0
    client = mirror.read(Source(upstream))
    upstream.body.finish()
    mirror.turn(times=10)
    assert client.received == DATA
