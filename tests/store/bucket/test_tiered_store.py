"""A local store in front of a bucket keeps the contract and shares its contents with other mirrors."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from obstore.exceptions import GenericError
from obstore.store import MemoryStore
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dockmirror.interfaces import ContentKind, IBucketBlob, TagEntry
from dockmirror.oci.digest import Digest
from dockmirror.store import layout, write_behind
from dockmirror.store.bucket.bucket import MAX_BACKOFF, MIN_BACKOFF, BucketUnavailable
from dockmirror.store.bucket.bucket_stores import BucketContentStore
from dockmirror.store.bucket.bucket_uploader import (
    ARRIVAL_GRACE,
    LISTING_INTERVAL,
    POLL_INTERVAL,
    BucketUploader,
)
from dockmirror.store.bucket.tiered_store import (
    BUCKET_CHECK_INTERVAL,
    REFRESH_TTL,
    REUPLOAD_INTERVAL,
    TieredDocumentStore,
    TieredStore,
)
from dockmirror.store.local_store import LocalDocumentStore

from ...answering import now, watch
from ..stocked import (
    DATA,
    DIGEST,
    ELSEWHERE,
    EPOCH,
    HERE,
    LARGE,
    LARGE_DIGEST,
    LATEST,
    read,
    read_tag,
)
from ..threads import HeldThreads, inline
from .machines import BucketThreads, Machine, bucket

T = TypeVar("T")


@pytest.fixture
def clock() -> Clock:
    """A clock in November 2023."""
    clock = Clock()
    clock.advance(EPOCH)
    return clock


@pytest.fixture
def machines(tmp_path: Path, clock: Clock) -> tuple[Machine, Machine]:
    """Two mirrors without contents."""
    store = MemoryStore()
    roots = tmp_path / "one", tmp_path / "two"
    for root in roots:
        root.mkdir()
    return Machine(roots[0], store, clock), Machine(roots[1], store, clock)


Machines = tuple[Machine, Machine]


def test_shared(machines: Machines, clock: Clock) -> None:
    """Everything that one mirror has uploaded is seen by the other, and by itself if it loses its disk."""
    one, two = machines
    now(one.contents.add(HERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    now(one.contents.add(HERE, DIGEST, ContentKind.MANIFEST, DATA))
    now(one.tags.put(HERE, LATEST, DIGEST))
    now(one.documents.write("name", DATA))
    assert now(two.contents.open(HERE, DIGEST, ContentKind.MANIFEST)) is None
    assert one.upload() == 0
    clock.advance(BUCKET_CHECK_INTERVAL)
    shutil.rmtree(one.root)
    one.root.mkdir()
    for machine in machines:
        assert now(read(now(machine.contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB)))) == LARGE
        assert now(read(now(machine.contents.open(HERE, DIGEST, ContentKind.MANIFEST)))) == DATA
        assert now(machine.contents.open(HERE, DIGEST, ContentKind.BLOB)) is None
        assert now(machine.tags.get(HERE, LATEST)) == TagEntry(DIGEST, EPOCH)
    assert now(two.documents.read("name")) == DATA


def test_requests(machines: Machines) -> None:
    """A local content costs no request; a small one in the bucket one, and is local and counted then."""
    one, two = machines
    now(one.contents.add(HERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    now(one.contents.add(HERE, DIGEST, ContentKind.MANIFEST, DATA))
    one.upload()
    one.bucket.requests.clear()
    for digest, kind in ((LARGE_DIGEST, ContentKind.BLOB), (DIGEST, ContentKind.MANIFEST)):
        assert now(read(now(one.contents.open(HERE, digest, kind)))) is not None
        assert now(one.contents.link(HERE, digest, kind))
    assert (one.upload(), one.bucket.requests) == (0, {})
    for _ in range(3):
        assert now(read(now(two.contents.open(HERE, DIGEST, ContentKind.MANIFEST)))) == DATA
    assert two.bucket.requests == {"get": 1}
    assert now(two.local.contents.holds(DIGEST))
    assert two.added == [len(DATA)]
    assert IBucketBlob.providedBy(now(two.contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB)))
    assert two.used == [DIGEST] * 3 + [LARGE_DIGEST]


@pytest.mark.parametrize("data", [LARGE, LARGE * 20], ids=["small", "large"])
def test_link_in_the_bucket(machines: Machines, data: bytes) -> None:
    """A content is uploaded once, a large one in parts; a link to it is written where it is."""
    one, two = machines
    digest = Digest.of(data)
    now(one.contents.add(HERE, digest, ContentKind.BLOB, data))
    assert one.upload() == 0
    assert one.bucket.requests.get("upload", 0) == (len(data) > len(LARGE))
    assert now(two.contents.open(HERE, digest, ContentKind.MANIFEST)) is None
    assert now(two.contents.holds(digest))
    assert now(two.contents.link(HERE, digest, ContentKind.MANIFEST))
    now(one.contents.link(ELSEWHERE, digest, ContentKind.MANIFEST))
    assert one.upload() == 0
    assert one.bucket.requests.get("upload", 0) == (len(data) > len(LARGE))
    for place, kind in (
        (HERE, ContentKind.BLOB),
        (HERE, ContentKind.MANIFEST),
        (ELSEWHERE, ContentKind.MANIFEST),
    ):
        opened = now(two.contents.open(place, digest, kind))
        assert opened is not None
        assert opened.size == len(data)


def test_bucket_down(machines: Machines, tmp_path: Path, clock: Clock) -> None:
    """While the bucket is down local contents are served, and writes stay queued."""
    one, two = machines
    one.threads.down = True
    now(one.contents.add(HERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    now(one.tags.put(HERE, LATEST, LARGE_DIGEST))
    now(one.documents.write("name", DATA))
    assert now(read(now(one.contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB)))) == LARGE
    clock.advance(BUCKET_CHECK_INTERVAL)
    assert now(one.tags.get(HERE, LATEST)) is not None
    assert now(one.documents.read("other")) is None
    for _ in range(3):
        clock.advance(MAX_BACKOFF)
        assert one.upload() == 3
    with pytest.raises(OSError, match="no route"):
        now(one.bucket.probe())
    restarted = Machine(one.root, two.store, clock)
    assert restarted.upload() == 0
    assert now(read(now(two.contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB)))) == LARGE
    now(restarted.bucket.probe())


def test_a_bucket_that_takes_no_writes(machines: Machines, clock: Clock) -> None:
    """It is read, and the mirror is not ready as long as an upload waits for it."""
    one, two = machines
    now(two.contents.add(HERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    assert two.upload() == 0
    now(one.contents.add(HERE, DIGEST, ContentKind.BLOB, DATA))
    one.threads.down = True
    with pytest.raises(BucketUnavailable):
        now(one.bucket.put(layout.FORMAT, b"1"))
    one.threads.down = False
    store = TieredStore(one.contents, one.tags, one.documents, MultiService(), one.bucket, one.uploads)
    assert one.upload() == 1
    assert now(read(now(one.contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB)))) == LARGE
    assert store.failing
    with pytest.raises(BucketUnavailable, match="writing to the bucket"):
        now(store.probe())
    clock.advance(MIN_BACKOFF)
    assert one.upload() == 0
    now(store.probe())
    assert not store.failing


def test_evicted_before_upload(machines: Machines, clock: Clock) -> None:
    """A content that was evicted before its upload is not uploaded, nor its link."""
    one, two = machines
    now(one.contents.add(HERE, DIGEST, ContentKind.BLOB, DATA))
    (one.root / layout.data(DIGEST)).unlink()
    assert one.upload() == 1  # it may be about to be there
    clock.advance(ARRIVAL_GRACE)
    assert one.upload() == 0
    assert now(two.contents.open(HERE, DIGEST, ContentKind.BLOB)) is None


def test_a_content_that_is_evicted_while_it_is_uploaded(machines: Machines, clock: Clock) -> None:
    """It is uploaded all the same, and no failure of the bucket."""
    one, two = machines
    digest = Digest.of(data := LARGE * 20)
    now(one.contents.add(HERE, digest, ContentKind.BLOB, data))
    uploader = Machine(one.root, one.store, clock, threads := HeldThreads())
    uploading = watch(uploader.uploads.run())
    (one.root / layout.data(digest)).unlink()
    while threads.held:
        threads.run()
    assert (uploading, uploader.bucket.write_health.failure) == ([None], None)
    assert write_behind.list_pending(one.root) == []
    assert now(read(now(two.contents.open(HERE, digest, ContentKind.BLOB)))) == data


@pytest.mark.parametrize("data", [LARGE, LARGE * 20], ids=["small", "large"])
def test_a_corrupt_content_is_not_uploaded(machines: Machines, clock: Clock, data: bytes) -> None:
    """A content that was changed on the disk does not reach the bucket, and is not counted any more."""
    one, two = machines
    digest = Digest.of(data)
    now(one.contents.add(HERE, digest, ContentKind.BLOB, data))
    path = one.root / layout.data(digest)
    path.write_bytes(data[:-1] + b"?")
    clock.advance(ARRIVAL_GRACE + 1)
    assert one.upload() == 0
    assert not path.exists()
    assert sum(one.added) == 0
    assert not now(two.contents.holds(digest))


def test_latest_confirmation_counts(machines: Machines, clock: Clock) -> None:
    """The latest confirmation of a tag counts; repeated ones are uploaded once an hour."""
    one, two = machines
    now(one.tags.put(HERE, LATEST, DIGEST))
    clock.advance(BUCKET_CHECK_INTERVAL)
    now(two.tags.put(HERE, LATEST, LARGE_DIGEST))
    assert (one.upload(), two.upload()) == (0, 0)
    clock.advance(BUCKET_CHECK_INTERVAL)
    for machine in machines:
        assert read_tag(machine.tags) == LARGE_DIGEST
    now(two.tags.put(HERE, LATEST, LARGE_DIGEST))
    assert not write_behind.list_pending(two.root)
    clock.advance(REUPLOAD_INTERVAL)
    now(two.tags.put(HERE, LATEST, LARGE_DIGEST))
    assert len(write_behind.list_pending(two.root)) == 1


def test_concurrent_reads(machines: Machines, clock: Clock) -> None:
    """Concurrent reads of a tag or a document share one request, again after a failure of the bucket."""
    one, two = machines
    now(one.tags.put(HERE, LATEST, DIGEST))
    now(one.documents.write("name", DATA))
    assert one.upload() == 0
    two.threads.down = True
    assert now(two.tags.get(HERE, LATEST)) is None
    assert now(two.documents.read("name")) is None
    clock.advance(MIN_BACKOFF)
    added = Machine(two.root, one.store, clock, threads := HeldThreads())
    tags = [watch(added.tags.get(HERE, LATEST)) for _ in range(3)]
    documents = [watch(added.documents.read("name")) for _ in range(3)]
    while threads.held:
        threads.run()
    assert tags == [[TagEntry(DIGEST, EPOCH)]] * 3
    assert documents == [[DATA]] * 3
    assert added.bucket.requests == {"get": 2}
    two.threads.down = False
    assert now(two.tags.get(HERE, LATEST)) == TagEntry(DIGEST, EPOCH)
    assert now(two.documents.read("name")) == DATA


@pytest.mark.parametrize("is_uploaded", [True, False])
def test_forgotten_tag(machines: Machines, is_uploaded: bool) -> None:
    """A tag that one mirror has removed, before or after its upload, is not found in the bucket."""
    one, _ = machines
    now(one.tags.put(HERE, LATEST, DIGEST))
    if is_uploaded:
        one.upload()
    now(one.tags.forget(HERE, LATEST))
    assert one.upload() == 0
    for machine in machines:
        assert now(machine.tags.get(HERE, LATEST)) is None


@pytest.mark.parametrize("written", [0, 1])
def test_a_tag_that_is_forgotten_while_it_is_uploaded(machines: Machines, clock: Clock, written: int) -> None:
    """It does not come back, whichever of its objects were written by then."""
    one, two = machines
    now(one.tags.put(HERE, LATEST, DIGEST))
    uploading = watch(Machine(one.root, one.store, clock, threads := HeldThreads()).uploads.run())
    for _ in range(written):
        threads.run()
    now(one.tags.forget(HERE, LATEST))
    while threads.held:
        threads.run()
    assert uploading == [None]
    assert now(two.tags.get(HERE, LATEST)) is None


@pytest.mark.parametrize("digests", [(DIGEST, LARGE_DIGEST), (LARGE_DIGEST, DIGEST)])
def test_moved_before_upload(machines: Machines, clock: Clock, digests: tuple[Digest, Digest]) -> None:
    """A tag that has moved before its upload is uploaded with its latest target."""
    one, two = machines
    one.threads.down = True
    for digest in digests:
        now(one.tags.put(HERE, LATEST, digest))
        one.upload()
        clock.advance(MAX_BACKOFF)
    one.threads.down = False
    assert one.upload() == 0
    assert read_tag(two.tags) == digests[1]


def test_uploads_under_way(machines: Machines, clock: Clock) -> None:
    """A failure waits for the uploads under way, which would else be repeated beside them."""
    one, _ = machines
    for name in ("first", "second"):
        now(one.documents.write(name, b"1"))
    objects = bucket(clock, MemoryStore(), threads := HeldThreads())
    uploads = BucketUploader(one.local, BucketContentStore(objects, clock), clock, inline)
    running = watch(uploads.run())
    threads.fail(GenericError("HTTP error"))
    assert running == []
    threads.run()
    assert running == [None]
    assert len(write_behind.list_pending(one.root)) == 1


def test_an_empty_queue_is_listed_again_when_its_directory_changes(tmp_path: Path) -> None:
    """And once a minute; otherwise no thread is asked, which would wake an idle mirror each second."""
    clock, threads = Clock(), BucketThreads()
    clock.advance(time.time() + 60)
    machine = Machine(tmp_path, MemoryStore(), clock)
    uploads = BucketUploader(machine.local, BucketContentStore(machine.bucket, clock), clock, threads)
    calls = []
    for seconds in (0.0, POLL_INTERVAL, LISTING_INTERVAL, POLL_INTERVAL):
        clock.advance(seconds)
        now(uploads.run())
        calls.append(threads.calls)
    assert calls == [1, 1, 2, 2]
    now(machine.documents.write("name", b"1"))
    now(uploads.run())
    assert (uploads.waiting, write_behind.list_pending(machine.root)) == (0, [])
    assert now(machine.bucket_documents.read("name")) == b"1"


def test_documents(machines: Machines, clock: Clock) -> None:
    """A document of another mirror is seen after a while and does not overwrite a queued one."""

    def refreshed(machine: Machine) -> bytes | None:
        clock.advance(REFRESH_TTL)
        now(machine.documents.read("name"))
        return now(machine.documents.read("name"))

    one, two = machines
    now(one.documents.write("name", b"1"))
    one.upload()
    assert now(two.documents.read("name")) == b"1"
    now(one.documents.write("name", b"2"))
    one.upload()
    assert now(two.documents.read("name")) == b"1"
    assert refreshed(two) == b"2"
    now(two.documents.write("name", b"3"))
    assert refreshed(two) == b"3"
    two.upload()
    assert refreshed(one) == b"3"


def test_written_during_a_refresh(machines: Machines, clock: Clock) -> None:
    """A local write counts although the bucket's version is just being fetched."""
    one, two = machines
    now(one.documents.write("name", b"1"))
    one.upload()
    clock.advance(REFRESH_TTL)
    queueing: Deferred[None] = Deferred()

    async def enqueue(each: write_behind.PendingWrite) -> None:
        await queueing
        await one.enqueue(each)

    local = LocalDocumentStore(one.root, clock, inline)
    writing = watch(
        TieredDocumentStore(local, one.bucket_documents, enqueue, one.is_pending, clock).write("name", b"2")
    )
    now(one.documents.read("name"))
    queueing.callback(None)
    assert writing == [None]
    assert now(one.documents.read("name")) == b"2"
    one.upload()
    assert now(two.documents.read("name")) == b"2"


def test_uploaded_during_a_write(machines: Machines, clock: Clock) -> None:
    """A document that is uploaded while it is written is uploaded again."""
    one, two = machines
    local = LocalDocumentStore(one.root, clock, threads := HeldThreads())
    writing = watch(
        TieredDocumentStore(local, one.bucket_documents, one.enqueue, one.is_pending, clock).write(
            "name", b"1"
        )
    )
    one.upload()
    while threads.held:
        threads.run()
    assert writing == [None]
    assert one.upload() == 0
    assert now(two.documents.read("name")) == b"1"


@pytest.mark.parametrize(
    "order",
    [
        "write claim read answer fail",
        "write claim read answer put",
        "write claim read put answer",
        "write read claim put answer",
        "read write claim put answer",
    ],
)
def test_a_refresh_does_not_bring_back_the_version_before_a_local_write(
    tmp_path: Path, clock: Clock, order: str
) -> None:
    """Neither while that is uploaded, nor if the bucket answers late."""
    machine = Machine(tmp_path, MemoryStore(), clock)
    now(machine.documents.write("name", b"1"))
    machine.upload()
    clock.advance(REFRESH_TTL)
    answered: Deferred[None] = Deferred()

    async def answer_late(call: Callable[[], T], /) -> T:
        result = call()
        await answered
        return result

    uploader = Machine(tmp_path, machine.store, clock, puts := HeldThreads())
    reader = Machine(tmp_path, machine.store, clock, answer_late)
    steps: dict[str, Callable[[], object]] = {
        "write": lambda: now(machine.documents.write("name", b"2")),
        "claim": lambda: watch(uploader.uploads.run()),
        "put": puts.run,
        "fail": lambda: puts.fail(GenericError("HTTP error")),
        "read": lambda: now(reader.documents.read("name")),
        "answer": lambda: answered.callback(None),
    }
    for step in order.split():
        steps[step]()
    assert now(machine.local.documents.read("name")) == b"2"
    assert machine.upload() == 0
    assert now(machine.bucket_documents.read("name")) == b"2"


def test_a_write_that_was_queued_again_after_a_kill_is_uploaded_once(tmp_path: Path, clock: Clock) -> None:
    machine = Machine(tmp_path, MemoryStore(), clock)
    now(machine.documents.write("name", b"1"))
    (queued,) = write_behind.list_pending(tmp_path)
    write, claimed = write_behind.claim(queued)
    assert write_behind.list_pending(tmp_path) == [claimed]
    now(machine.documents.write("name", b"2"))
    assert write_behind.list_pending(tmp_path) == [queued]
    assert machine.upload() == 0
    assert write is not None
    assert not write_behind.is_pending(tmp_path, write)
    assert now(machine.bucket_documents.read("name")) == b"2"
