"""Blobs that are held in a bucket: read from there once, or sent there for; the upstream while it fails."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dockmirror.concurrency.coroutines import RunInThread
from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Unreachable
from dockmirror.oci.header_fields import Range
from dockmirror.store import layout
from dockmirror.store.bucket.bucket import HEALTHY_FOR, MAX_BACKOFF, Bucket
from dockmirror.store.bucket.bucket_stores import BucketContentStore

from ..answering import now
from ..store.bucket.machines import BucketThreads, SigningBucket, bucket
from ..store.memory import MemoryContents, MemoryDocuments, MemoryTags
from ..store.threads import inline
from .downloads import MemoryDownloads
from .faulty import Faults
from .mirrors import NAME, Mirror, Store, body, header
from .origin import Origin, repository

DATA = bytes(range(256)) * 1024
DIGEST = Digest.of(DATA)
PATH = f"{NAME}/blobs/{DIGEST}"


class Far(Store):
    """A store whose contents are in a bucket."""

    def __init__(self, clock: Clock, kept: Bucket, contents: BucketContentStore) -> None:
        self.kept = kept
        self.contents = contents  # type: ignore[assignment]
        self.tags, self.documents = MemoryTags(clock), MemoryDocuments()
        self.downloads = MemoryDownloads(MemoryContents())
        self.faults = Faults()


def mirror(redirect: bool = False, threads: RunInThread = inline) -> tuple[Mirror, Origin, Far]:
    """Return a mirror whose bucket has the public blob."""
    origin, clock = Origin(), Clock()
    clock.advance(1_700_000_000.0)
    origin.shelf(NAME).publish(b"configuration", DATA)
    kept = bucket(clock, in_thread=threads, kind=SigningBucket)
    far = Far(clock, kept, BucketContentStore(kept, clock, 60.0 if redirect else None))
    now(far.contents.add(repository(NAME), DIGEST, ContentKind.BLOB, DATA))
    made = Mirror(origin, clock, far)
    made.get(f"{NAME}/manifests/latest")
    origin.take()
    return made, origin, far


def test_a_bucket_blob_is_served() -> None:
    """Whole, in part, by HEAD and conditionally, without a request to the upstream."""
    made, origin, _ = mirror()
    answer = made.ask(PATH)
    assert (answer.status, header(answer, "Cache-Status")) == (200, "dockmirror; hit")
    assert body(answer) == DATA
    part = Range.parse("bytes=5-9")
    answer = made.ask(PATH, range=part)
    assert (answer.status, body(answer)) == (206, DATA[5:10])
    head = made.ask(PATH, head=True)
    assert (head.status, head.body.descriptor.size) == (200, len(DATA))
    assert made.ask(PATH, if_none_match="*").status == 304
    assert origin.take() == []


@pytest.mark.parametrize("asked", [{}, {"range": Range.parse("bytes=5-9")}])
def test_anonymous_clients_are_redirected_to_the_bucket(asked: dict[str, Any]) -> None:
    """Only for public blobs; other requests are answered by the mirror."""
    made, origin, _ = mirror(redirect=True)
    answer = made.ask(PATH, **asked)
    assert (answer.status, body(answer)) == (307, b"")
    assert answer.location == f"https://bucket.example/{layout.data(DIGEST)}?signed"
    assert header(answer, "Cache-Control") == "no-store"
    assert header(answer, "Cache-Status") == "dockmirror; hit; detail=redirect"
    assert made.ask(PATH, head=True, **asked).status == 200
    assert origin.take() == []
    assert made.ask(PATH, "alice", **asked).status in (200, 206)


def test_nobody_is_sent_to_a_bucket_that_fails() -> None:
    """Also if it had the blob a moment ago: the upstream is asked then."""
    threads = BucketThreads()
    made, origin, _ = mirror(redirect=True, threads=threads)
    assert made.ask(PATH).status == 307
    threads.down = True
    made.clock.advance(HEALTHY_FOR)
    for _ in range(2):
        answer = made.ask(PATH)
        assert (answer.status, body(answer)) == (200, DATA)
        made.clock.advance(MAX_BACKOFF)
    assert origin.take()
    threads.down = False
    assert made.ask(PATH).status == 307


def test_private_blobs_are_not_redirected() -> None:
    made, origin, far = mirror(redirect=True)
    origin.shelf("team/app", ["alice"]).publish(b"configuration", DATA)
    now(far.contents.link(repository("team/app"), DIGEST, ContentKind.BLOB))
    answer = made.ask(f"team/app/blobs/{DIGEST}", "alice")
    assert (answer.status, body(answer)) == (200, DATA)
    with pytest.raises(Exception, match=r"(?i)denied|unauthorized|authentication"):
        made.ask(f"team/app/blobs/{DIGEST}", "bob")


def test_a_blob_that_left_the_bucket_comes_from_the_upstream() -> None:
    """If that fails, too, its error is raised."""
    made, origin, far = mirror()
    assert body(made.ask(PATH, range=Range.parse("bytes=0-0"))) == DATA[:1]
    now(far.kept.delete([str(layout.data(DIGEST))]))
    origin.trouble = Unreachable()
    with pytest.raises(Unreachable):
        made.ask(PATH)
    origin.take()
    origin.trouble = None
    made.clock.advance(60)
    assert body(made.ask(PATH)) == DATA
    assert origin.take() == [f"nobody: GET {PATH}"]
