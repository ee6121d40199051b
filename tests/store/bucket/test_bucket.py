"""A bucket that fails or is slow is left alone for a while, and its contents are verified."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import obstore
import pytest
from obstore.store import MemoryStore
from twisted.internet.task import Clock

from dockmirror.interfaces import ContentKind, IBucketBlob
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import BrokenOff, Unreachable
from dockmirror.oci.header_fields import ContentRange
from dockmirror.store import layout
from dockmirror.store.bucket.blocking_bucket import PART_SIZE, part_size
from dockmirror.store.bucket.bucket import (
    HEALTHY_FOR,
    MAX_BACKOFF,
    MIN_BACKOFF,
    RESPONSE_TIMEOUT,
    Bucket,
    BucketUnavailable,
)
from dockmirror.store.bucket.bucket_stores import ABSENT_TTL, BucketContentStore

from ...answering import Recorder, now, watch
from ..stocked import ELSEWHERE, HERE, LARGE, LARGE_DIGEST, read
from ..threads import HeldThreads, inline
from .machines import BucketThreads, SigningBucket, bucket

T = TypeVar("T")
KEY = layout.data(LARGE_DIGEST)
DATA = str(KEY)
SMALL = b"small"
MIB = 1024 * 1024
DIGEST = Digest.of(SMALL)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def threads() -> BucketThreads:
    return BucketThreads()


@pytest.fixture
def one_object(clock: Clock, threads: BucketThreads) -> Bucket:
    store = MemoryStore()
    obstore.put(store, DATA, LARGE, attributes={"blob": HERE.name})
    return bucket(clock, store, threads)


def test_backoff(one_object: Bucket, clock: Clock, threads: BucketThreads) -> None:
    """After a failure nothing is requested for a growing while; signed URLs are not disclosed."""
    threads.down = True
    with pytest.raises(BucketUnavailable, match=r"no route to http://h/x$"):
        now(one_object.get(KEY))
    calls, pause = threads.calls, MIN_BACKOFF
    while pause < MAX_BACKOFF:
        with pytest.raises(BucketUnavailable):
            now(one_object.get(KEY))
        assert threads.calls == calls
        clock.advance(pause)
        with pytest.raises(BucketUnavailable):
            now(one_object.get(KEY))
        calls, pause = calls + 1, pause * 2
        assert threads.calls == calls
    threads.down = False
    clock.advance(MAX_BACKOFF)
    assert now(one_object.get(KEY)) is not None
    assert one_object.health.failure is None


def test_clock_set_back(one_object: Bucket, clock: Clock, threads: BucketThreads) -> None:
    """A clock that is set back does not prolong the back-off."""
    threads.down = True
    clock.advance(3600)
    with pytest.raises(BucketUnavailable):
        now(one_object.get(KEY))
    threads.down = False
    clock.rightNow = 0.0
    assert now(one_object.get(KEY)) is not None


class LateThreads(HeldThreads):
    """Threads that begin each call at once, and end it when the test says so."""

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]:
        result = call()
        return super().__call__(lambda: result)


@pytest.mark.parametrize(("threads", "fails"), [(LateThreads(), True), (HeldThreads(), False)])
def test_timeout(clock: Clock, threads: HeldThreads, fails: bool) -> None:
    """A request that takes too long has failed; one that has found no thread is given up."""
    store = MemoryStore()
    one_object = bucket(clock, store, threads)
    outcome = watch(one_object.put_new(KEY, LARGE))
    clock.advance(RESPONSE_TIMEOUT)
    assert isinstance(outcome[0], BucketUnavailable)
    threads.run()
    assert [each["path"] for chunk in store.list() for each in chunk] == ([DATA] if fails else [])
    assert (one_object.write_health.failure is not None) == fails


def test_objects(one_object: Bucket) -> None:
    """A new object is put once; missing objects are no failure, and can be deleted."""
    key = layout.document("turn")
    assert now(one_object.get(key)) is None
    assert now(one_object.read(key)) is None
    assert one_object.health.failure is None
    assert now(one_object.put_new(key, b"1"))
    assert not now(one_object.put_new(key, b"22"))
    assert (now(one_object.read(key)) or (b"",))[0] == b"1"
    assert [(each.key, each.size) for each in now(one_object.list(layout.DOCUMENTS))] == [(str(key), 1)]
    now(one_object.delete([str(key), "not/there"]))
    assert not now(one_object.list(layout.DOCUMENTS))


def open_blob(contents: BucketContentStore, digest: Digest = LARGE_DIGEST) -> IBucketBlob:
    found = now(contents.open(HERE, digest, ContentKind.BLOB))
    assert IBucketBlob.providedBy(found)
    return found


def large_blob(clock: Clock, lifetime: float | None = None) -> tuple[BucketContentStore, Bucket]:
    one_object = bucket(clock, kind=SigningBucket)
    contents = BucketContentStore(one_object, clock, lifetime)
    now(contents.add(HERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    one_object.requests.clear()
    return BucketContentStore(one_object, clock, lifetime), one_object


def test_number_of_requests(clock: Clock) -> None:
    """Opening a blob takes a HEAD, reading it a GET, and opening it for another repository one GET more."""
    contents, one_object = large_blob(clock)
    assert now(read(now(contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB)))) == LARGE
    assert one_object.requests == {"head": 1, "get": 1}
    now(contents.link(ELSEWHERE, LARGE_DIGEST, ContentKind.BLOB))
    other = BucketContentStore(one_object, clock)
    one_object.requests.clear()
    for _ in range(3):
        assert now(read(now(other.open(ELSEWHERE, LARGE_DIGEST, ContentKind.BLOB)))) == LARGE
    assert one_object.requests == {"head": 1, "get": 4}


@pytest.mark.parametrize(
    ("offset", "status", "content_range"),
    [(0, 200, None), (1000, 206, ContentRange(1000, len(LARGE) - 1, len(LARGE)))],
)
def test_open_at_an_offset(
    clock: Clock, offset: int, status: int, content_range: ContentRange | None
) -> None:
    """As a source a blob gives the whole or the rest from an offset."""
    contents, _ = large_blob(clock)
    answer = now(open_blob(contents).open(offset))
    now(answer.body.deliver(recorder := Recorder()))
    assert (answer.status, answer.content_range, recorder.data) == (status, content_range, LARGE[offset:])


def test_deleted_by_another_mirror(clock: Clock) -> None:
    """A blob that another mirror has deleted cannot be opened and is then known to be absent."""
    contents, one_object = large_blob(clock)
    open_blob(contents).close()
    distant = open_blob(contents)
    now(one_object.delete([DATA]))
    with pytest.raises(Unreachable):
        now(distant.open(0))
    with pytest.raises(BrokenOff):
        now(distant.body(Descriptor(), [ContentRange(0, 1, len(LARGE))]).deliver(Recorder()))
    assert now(contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB)) is None


@pytest.mark.parametrize("is_source", [True, False])
def test_corrupt_contents(clock: Clock, is_source: bool) -> None:
    """A corrupt blob is not delivered to its end and deleted; a corrupt manifest is not served."""
    contents, one_object = large_blob(clock)
    now(one_object.put(KEY, LARGE[:-1] + b"?", {"blob": HERE.name}))
    now(one_object.put(layout.data(DIGEST), b"other", {"manifest": HERE.name}))
    blob, whole = open_blob(contents), ContentRange(0, len(LARGE) - 1, len(LARGE))
    body = now(blob.open(0)).body if is_source else blob.body(Descriptor(), [whole])
    recorder = Recorder()
    with pytest.raises(BrokenOff):
        now(body.deliver(recorder))
    assert len(recorder.data) < len(LARGE)
    assert now(contents.open(HERE, DIGEST, ContentKind.MANIFEST)) is None
    assert not now(contents.holds(LARGE_DIGEST))
    assert not now(contents.holds(DIGEST))


def test_redirects(clock: Clock) -> None:
    """If clients are redirected, a look-up takes one HEAD, and another one if the bucket was idle since."""
    contents, one_object = large_blob(clock, lifetime=60.0)
    for _ in range(2):
        assert now(open_blob(contents).presigned_url()) == f"https://bucket.example/{DATA}?signed"
    assert one_object.requests == {"head": 1}
    clock.advance(HEALTHY_FOR)
    assert now(open_blob(contents).presigned_url()) is not None
    assert one_object.requests == {"head": 2}
    plain, _ = large_blob(clock)
    assert now(open_blob(plain).presigned_url()) is None


def test_a_bucket_that_cannot_sign_is_read(one_object: Bucket, clock: Clock, threads: BucketThreads) -> None:
    """Clients are sent nowhere then, and are served all the same."""
    blob = open_blob(BucketContentStore(one_object, clock, 60.0))
    threads.down = True
    assert now(blob.presigned_url()) is None
    threads.down = False
    assert now(blob.presigned_url()) is None
    assert now(read(blob)) == LARGE


def test_a_bucket_that_takes_no_writes_is_read(
    one_object: Bucket, clock: Clock, threads: BucketThreads
) -> None:
    """Such as a full one: writes back off by themselves."""
    threads.down = True
    with pytest.raises(BucketUnavailable, match=r"writing to the bucket: .* no route"):
        now(one_object.put(KEY, b""))
    threads.down = False
    assert now(one_object.get(KEY)) is not None
    with pytest.raises(BucketUnavailable, match="writing to the bucket"):
        now(one_object.delete([DATA]))
    clock.advance(MIN_BACKOFF)
    now(one_object.delete([DATA]))
    assert now(one_object.get(KEY)) is None


@pytest.mark.parametrize("kind", ContentKind)
def test_an_empty_object_is_replaced(clock: Clock, kind: ContentKind) -> None:
    """Such as one that a tool has left: it is deleted, so that the content can be put again."""
    one_object = bucket(clock)
    now(one_object.put(KEY, b"", {kind.value: HERE.name}))
    contents = BucketContentStore(one_object, clock)
    assert now(contents.open(HERE, LARGE_DIGEST, kind)) is None
    assert not now(contents.holds(LARGE_DIGEST))
    now(contents.add(HERE, LARGE_DIGEST, kind, LARGE))
    assert now(read(now(contents.open(HERE, LARGE_DIGEST, kind)))) == LARGE


def test_a_corrupt_object_that_cannot_be_deleted_is_left_alone_for_a_while(clock: Clock) -> None:
    """So that it is logged once in some seconds, and not for each client."""
    one_object = bucket(clock)
    now(one_object.put(KEY, b"", {ContentKind.BLOB.value: HERE.name}))
    contents = BucketContentStore(one_object, clock)
    one_object.write_health.record_failure("access denied")
    for _ in range(3):
        assert now(contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB)) is None
    assert one_object.requests == {"put": 1, "head": 1}
    clock.advance(ABSENT_TTL)
    assert now(contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB)) is None
    assert one_object.requests["head"] == 2


def test_a_corrupt_blob_that_cannot_be_deleted_is_not_opened_again_at_once(clock: Clock) -> None:
    """So that a download that has opened it gets the blob from the upstream."""
    contents, one_object = large_blob(clock)
    now(one_object.put(KEY, LARGE[:-1] + b"?", {"blob": HERE.name}))
    blob = open_blob(contents)
    one_object.write_health.record_failure("access denied")
    with pytest.raises(BrokenOff):
        now(now(blob.open(0)).body.deliver(Recorder()))
    for offset in (0, 1):
        with pytest.raises(Unreachable):
            now(blob.open(offset))
    assert one_object.requests["get"] == 1
    clock.advance(ABSENT_TTL)
    now(blob.open(0)).body.discard()


@pytest.mark.parametrize("size", [1, 80_000 * MIB, 80_000 * MIB + 1, 5_000_000 * MIB])
def test_a_file_of_any_size_has_no_more_parts_than_s3_accepts(size: int) -> None:
    assert part_size(size) >= PART_SIZE
    assert size <= 10_000 * part_size(size)
    assert part_size(size) == PART_SIZE or 9_999 * part_size(size) < size


def test_look_ups_are_cached(clock: Clock) -> None:
    """Absence is cached for some seconds, unless the content is put here meanwhile; so is presence."""
    contents, one_object = large_blob(clock)
    for kind in ContentKind:
        assert now(contents.open(HERE, DIGEST, kind)) is None
        assert not now(contents.holds(DIGEST))
    assert one_object.requests == {"head": 1}
    now(contents.add(HERE, DIGEST, ContentKind.BLOB, SMALL))
    assert now(contents.holds(DIGEST))
    assert now(contents.open(ELSEWHERE, DIGEST, ContentKind.BLOB)) is None
    now(contents.write_link(ELSEWHERE, DIGEST, ContentKind.BLOB))
    assert now(contents.open(ELSEWHERE, DIGEST, ContentKind.BLOB)) is not None
    assert now(contents.exists(DIGEST))
    now(one_object.delete([str(layout.data(DIGEST))]))
    assert now(contents.holds(DIGEST))
    assert not now(contents.exists(DIGEST))
    assert not now(contents.holds(DIGEST))


def test_linked_during_a_look_up(clock: Clock) -> None:
    """A link that is written during its look-up counts."""
    store = MemoryStore()
    now(BucketContentStore(bucket(clock, store), clock).add(HERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    contents = BucketContentStore(bucket(clock, store, threads := HeldThreads()), clock)
    opening = watch(contents.open(ELSEWHERE, LARGE_DIGEST, ContentKind.BLOB))
    threads.run()
    linking = watch(contents.link(ELSEWHERE, LARGE_DIGEST, ContentKind.BLOB))
    threads.run_last()
    assert linking == [True]
    threads.run()
    (found,) = opening
    assert found is not None
    assert contents.is_known_link(ELSEWHERE, LARGE_DIGEST, ContentKind.BLOB)


def test_lazy_connection(clock: Clock) -> None:
    """The client is made with the first request, since its threads would not survive a fork."""
    connected: list[MemoryStore] = []

    def connect() -> MemoryStore:
        connected.append(MemoryStore())
        return connected[-1]

    one_object = Bucket("the bucket", connect, clock, inline)
    assert not connected
    now(one_object.get(KEY))
    now(one_object.get(KEY))
    assert len(connected) == 1
