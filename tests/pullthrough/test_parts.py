"""Parts of blobs that are not held: fetched in blocks, for every client that may have the blob."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest
from twisted.internet.task import Clock

from dockmirror.interfaces import Answer, ContentKind, IPartSource
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import RangeInvalid, Unauthorized
from dockmirror.oci.header_fields import ContentRange, Range, Span
from dockmirror.oci.request import Repository
from dockmirror.pullthrough.authorization import REREAD_AFTER
from dockmirror.store.downloads.context import DownloadContext
from dockmirror.store.downloads.downloads import Downloads
from dockmirror.store.local_store import LocalContentStore

from ..answering import Recorder, now, watch
from ..store.memory import MemoryContents
from ..store.threads import inline
from .downloads import MemoryDownloads
from .faulty import LeavingDocuments, SlowContents
from .mirrors import Mirror, body, header
from .origin import Origin

MEBIBYTE = 1024 * 1024
DATA = os.urandom(4 * MEBIBYTE - 5)
DIGEST = Digest.of(DATA)
SMALL = b"a small layer"
PUBLIC = f"library/busybox/blobs/{DIGEST}"
PRIVATE = f"me/private/blobs/{DIGEST}"
FIRST = "bytes=0-1048575"


@pytest.fixture
def parts(origin: Origin, mirror: Mirror, tmp_path: Path) -> Mirror:
    """A mirror on a disk, whose clients have grants."""
    contents = LocalContentStore(tmp_path, mirror.clock, inline)
    store = mirror.store
    store.contents = cast("MemoryContents", contents)
    context = DownloadContext(tmp_path, contents, mirror.clock, inline, finish_threshold=0)
    store.downloads = cast("MemoryDownloads", Downloads(context))
    restarted = mirror.restarted()
    origin.shelf("library/busybox").publish(SMALL, DATA)
    origin.shelf("me/private", {"alice", "bob"}).publish(SMALL, DATA)
    restarted.ask("library/busybox/manifests/latest")
    for who in ("alice", "bob"):
        restarted.ask("me/private/manifests/latest", who)
    origin.take()
    return restarted


def read(mirror: Mirror, answer: Answer) -> bytes:
    """Return a body that takes several turns of the reactor."""
    outcome = watch(answer.body.deliver(sink := Recorder()))
    for _ in range(20):
        mirror.clock.advance(0)
    assert outcome == [None]
    return sink.data


def ranged(text: str) -> Range:
    parsed = Range.parse(f"bytes={text}")
    assert parsed is not None
    return parsed


class SlowDownloads(Downloads):
    """Downloads on a clock, whose parts take so long to come that what is remembered is read again."""

    clock: Clock

    async def read_part(
        self, registry: str, repository: Repository, digest: Digest, span: Span, source: IPartSource
    ) -> Answer | None:
        answer = await super().read_part(registry, repository, digest, span, source)
        self.clock.advance(REREAD_AFTER)
        return answer


def test_a_part_that_has_come_waits_for_nothing(origin: Origin, mirror: Mirror, tmp_path: Path) -> None:
    """Its body would be left open if the client left meanwhile."""
    contents, store = LocalContentStore(tmp_path, mirror.clock, inline), mirror.store
    downloads = SlowDownloads(DownloadContext(tmp_path, contents, mirror.clock, inline))
    downloads.clock = mirror.clock
    store.contents, store.downloads = cast("MemoryContents", contents), cast("MemoryDownloads", downloads)
    store.documents = LeavingDocuments(mirror.clock)
    origin.shelf("library/busybox").publish(SMALL, DATA)
    (answer,) = mirror.restarted().later(PUBLIC, range=ranged("5-9"))
    assert body(answer) == DATA[5:10]


def test_a_held_blob_that_is_open_waits_for_nothing(origin: Origin, mirror: Mirror, tmp_path: Path) -> None:
    """Its file would be left open if the client left meanwhile."""
    contents, store = SlowContents(tmp_path, mirror.clock, inline), mirror.store
    downloads = Downloads(DownloadContext(tmp_path, contents, mirror.clock, inline))
    store.contents, store.downloads = cast("MemoryContents", contents), cast("MemoryDownloads", downloads)
    origin.shelf("me/private", {"alice", "bob"}).publish(SMALL, DATA)
    read(mirror, mirror.restarted().ask(PRIVATE, "alice"))
    store.documents = LeavingDocuments(mirror.clock)
    restarted = mirror.restarted()
    (answer,) = restarted.later(PRIVATE, "bob")
    assert header(answer, "Cache-Status") == "dockmirror; hit"
    assert read(restarted, answer) == DATA


def test_a_part_is_fetched_in_blocks(origin: Origin, parts: Mirror) -> None:
    """It is marked as one that is passed through; other clients cost nothing."""
    answer = parts.ask(PUBLIC, range=ranged("5-9"))
    assert (answer.status, answer.content_range) == (206, ContentRange(5, 9, len(DATA)))
    assert (answer.body.descriptor.size, answer.upstream_status) == (5, 206)
    assert header(answer, "Cache-Status") == "dockmirror; fwd=miss"
    assert header(answer, "Cache-Control") is None
    assert body(answer) == DATA[5:10]
    for asked, expected in (("0-99", DATA[:100]), ("1000-1999", DATA[1000:2000])):
        assert parts.get(PUBLIC, range=ranged(asked)) == expected
    assert origin.take() == [f"nobody: GET {PUBLIC} {FIRST}"]


def test_a_blob_that_was_read_in_parts_is_held(origin: Origin, parts: Mirror) -> None:
    """It is completed when half of it is there, and is a hit then."""
    assert read(parts, parts.ask(PUBLIC, range=ranged("0-"))) == DATA
    assert origin.take() == [f"nobody: GET {PUBLIC} bytes=0-8388607"]
    answer = parts.ask(PUBLIC)
    assert header(answer, "Cache-Status") == "dockmirror; hit"
    assert read(parts, answer) == DATA
    assert origin.take() == []


def test_blocks_of_a_private_blob_need_consent(origin: Origin, parts: Mirror) -> None:
    """Blocks are given to a client that the upstream gives the blob, and to nobody else."""
    parts.get(PRIVATE, "alice", range=ranged("0-9"))
    origin.take()
    assert parts.get(PRIVATE, "alice", range=ranged("5-9")) == DATA[5:10]
    assert parts.get(PRIVATE, "bob", range=ranged("5-9")) == DATA[5:10]
    assert origin.take() == []
    for who in ("mallory", None):
        with pytest.raises(Unauthorized):
            parts.ask(PRIVATE, who, range=ranged("5-9"))
    assert origin.take() == [f"mallory: CHECK {PRIVATE}", f"nobody: CHECK {PRIVATE}"]
    assert parts.get(PUBLIC, range=ranged("5-9")) == DATA[5:10]
    assert origin.take() == [f"nobody: CHECK {PUBLIC}"]


def test_a_whole_blob_is_made_of_blocks(origin: Origin, parts: Mirror) -> None:
    """A client that asks for the whole is given a verified download, which requests what is missing."""
    parts.get(PUBLIC, range=ranged("0-9"))
    origin.take()
    answer = parts.ask(PUBLIC)
    assert header(answer, "Cache-Status") == "dockmirror; fwd=miss; stored"
    assert read(parts, answer) == DATA
    assert origin.take() == [f"nobody: GET {PUBLIC} bytes={MEBIBYTE}-"]


def test_wrong_blocks_are_not_held(origin: Origin, parts: Mirror) -> None:
    """The blob is passed through after that."""
    origin.shelf("library/busybox").blobs[DIGEST] = wrong = DATA[:-1] + b"x"
    assert parts.get(PUBLIC, range=ranged("0-9")) == DATA[:10]
    parts.ask(PUBLIC, range=ranged("1048576-3145727")).body.discard()
    origin.take()
    assert parts.get(PUBLIC, range=ranged("0-9")) == DATA[:10]
    assert parts.get(PUBLIC, range=ranged("-1")) == wrong[-1:]
    assert origin.take() == [f"nobody: GET {PUBLIC} bytes=0-9", f"nobody: GET {PUBLIC} bytes=-1"]
    assert not parts.store.downloads.is_downloading("docker.io", DIGEST)


def test_a_part_behind_the_end_is_refused(parts: Mirror) -> None:
    for _ in range(2):
        with pytest.raises(RangeInvalid) as caught:
            parts.ask(PUBLIC, range=ranged(f"{len(DATA)}-"))
        assert caught.value.content_size == len(DATA)
        parts.get(PUBLIC, range=ranged("0-0"))


def test_a_part_behind_the_end_is_refused_after_consent(origin: Origin, parts: Mirror) -> None:
    """A client that may not have the blob learns neither its size nor that others fetch it."""
    behind = ranged(f"{len(DATA)}-")
    parts.get(PRIVATE, "alice", range=ranged("0-9"))
    origin.take()
    for who in ("mallory", None):
        with pytest.raises(Unauthorized):
            parts.ask(PRIVATE, who, range=behind)
    assert origin.take() == [f"mallory: CHECK {PRIVATE}", f"nobody: CHECK {PRIVATE}"]
    with pytest.raises(RangeInvalid):
        parts.ask(PRIVATE, "bob", range=behind)


def test_several_ranges_are_passed_through(origin: Origin, parts: Mirror) -> None:
    parts.later(PUBLIC, range=ranged("0-1,5-6"))
    assert origin.take() == [f"nobody: GET {PUBLIC} bytes=0-1,5-6"]


def test_the_blob_is_linked_where_it_was_read(parts: Mirror) -> None:
    """Other repositories are not given it without a question."""
    read(parts, parts.ask(PUBLIC, range=ranged("0-")))
    for name, is_linked in (("library/busybox", True), ("me/private", False)):
        stored = now(parts.contents.open(Repository(f"docker.io/{name}"), DIGEST, ContentKind.BLOB))
        assert (stored is not None) == is_linked
        if stored is not None:
            stored.close()
