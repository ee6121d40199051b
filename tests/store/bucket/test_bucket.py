"""A bucket that fails or is slow is rested from, and everything that it holds is verified."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import obstore
import pytest
from obstore.exceptions import GenericError
from obstore.store import MemoryStore
from twisted.internet.task import Clock

from dockmirror.interfaces import ContentKind, IBucketBlob
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import BrokenOff, Unreachable
from dockmirror.oci.ranges import ContentRange
from dockmirror.store import layout
from dockmirror.store.bucket.bucket import (
    MAX_BACKOFF,
    MIN_BACKOFF,
    RESPONSE_TIMEOUT,
    Bucket,
    BucketUnavailable,
)
from dockmirror.store.bucket.bucket_stores import ABSENT_TTL, BucketContentStore

from ...answering import Recorder, now, watch
from ..contract import ELSEWHERE, HERE, LARGE, LARGE_DIGEST, read
from ..threads import HeldThreads, inline
from .buckets import bucket

T = TypeVar("T")
KEY = layout.data(LARGE_DIGEST)
DATA = str(KEY)
SMALL = b"small"
DIGEST = Digest.of(SMALL)


class Threads:
    """Run at once, unless the bucket is to be down."""

    def __init__(self) -> None:
        self.down = False
        self.calls = 0

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]:
        """The call, or the failure that obstore has."""
        self.calls += 1

        async def run() -> T:
            if self.down:
                raise GenericError("HTTP error: no route to http://h/x?X-Amz-Signature=s3cret\n\nDebug")
            return call()

        return run()


@pytest.fixture
def clock() -> Clock:
    """At nought."""
    return Clock()


@pytest.fixture
def threads() -> Threads:
    """Of a bucket that is up."""
    return Threads()


@pytest.fixture
def asked(clock: Clock, threads: Threads) -> Bucket:
    """With one object."""
    store = MemoryStore()
    obstore.put(store, DATA, LARGE)
    return bucket(clock, store, threads)


def test_failure(asked: Bucket, clock: Clock, threads: Threads) -> None:
    """After a failure nothing is asked for a while, then longer; what signs an address is told nobody."""
    threads.down = True
    with pytest.raises(BucketUnavailable, match=r"no route to http://h/x$"):
        now(asked.get(KEY))
    calls = threads.calls
    with pytest.raises(BucketUnavailable):
        now(asked.get(KEY))
    assert threads.calls == calls
    pause = MIN_BACKOFF
    while pause < MAX_BACKOFF:
        clock.advance(pause)
        with pytest.raises(BucketUnavailable):
            now(asked.get(KEY))
        calls += 1
        assert threads.calls == calls
        pause *= 2
    threads.down = False
    clock.advance(MAX_BACKOFF)
    assert now(asked.get(KEY)) is not None
    assert asked.health.failure is None


def test_clock_set_back(asked: Bucket, clock: Clock, threads: Threads) -> None:
    """It is not left alone for longer by that."""
    threads.down = True
    clock.advance(3600)
    with pytest.raises(BucketUnavailable):
        now(asked.get(KEY))
    threads.down = False
    clock.rightNow = 0.0
    assert now(asked.get(KEY)) is not None


def test_slow(clock: Clock) -> None:
    """One that has not answered in time has failed; what it answers later is thrown away."""
    held = HeldThreads()
    store = MemoryStore()
    obstore.put(store, DATA, LARGE)
    asked = bucket(clock, store, held)
    outcome = watch(asked.get(KEY))
    clock.advance(RESPONSE_TIMEOUT)
    assert isinstance(outcome[0], BucketUnavailable)
    held.run()
    assert asked.health.failure is not None


def test_absence_is_an_answer(asked: Bucket) -> None:
    """That there is nothing is no failure."""
    assert now(asked.get(layout.document("none"))) is None
    assert now(asked.read(layout.document("none"))) is None
    assert asked.health.failure is None


def test_new(asked: Bucket) -> None:
    """Of two who would write first one does."""
    key = layout.document("turn")
    assert now(asked.put_new(key, b"1"))
    assert not now(asked.put_new(key, b"2"))
    assert (now(asked.read(key)) or (b"",))[0] == b"1"


def test_deleted(asked: Bucket) -> None:
    """What is not there is deleted as well; what is listed has a size."""
    now(asked.put(layout.document("x"), b"12"))
    listed = now(asked.list(layout.DOCUMENTS))
    assert [(each.key, each.size) for each in listed] == [(str(layout.document("x")), 2)]
    now(asked.delete([listed[0].key, "not/there"]))
    assert not now(asked.list(layout.DOCUMENTS))


def opened(contents: BucketContentStore, digest: Digest = LARGE_DIGEST) -> IBucketBlob:
    """What lies in the bucket."""
    found = now(contents.open(HERE, digest, ContentKind.BLOB))
    assert IBucketBlob.providedBy(found)
    return found


def counted(clock: Clock, lifetime: float | None = None) -> tuple[BucketContentStore, Bucket]:
    """With a large content."""
    asked = bucket(clock)
    contents = BucketContentStore(asked, clock, lifetime)
    now(contents.add(HERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    asked.requests.clear()
    return BucketContentStore(asked, clock, lifetime), asked


def test_one_request(clock: Clock) -> None:
    """To open a blob takes a HEAD, to read it a GET; of another repository one GET more, the first time."""
    contents, asked = counted(clock)
    assert now(read(now(contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB)))) == LARGE
    assert asked.requests == {"head": 1, "get": 1}
    now(contents.link(ELSEWHERE, LARGE_DIGEST, ContentKind.BLOB))
    other = BucketContentStore(asked, clock)
    asked.requests.clear()
    for _ in range(3):
        assert now(read(now(other.open(ELSEWHERE, LARGE_DIGEST, ContentKind.BLOB)))) == LARGE
    assert asked.requests == {"head": 1, "get": 4}


def test_from_an_offset(clock: Clock) -> None:
    """As a source it gives the whole, or the rest."""
    contents, _ = counted(clock)
    whole = now(opened(contents).open(0))
    taken = Recorder()
    now(whole.body.deliver(taken))
    assert (whole.status, taken.data) == (200, LARGE)
    rest = now(opened(contents).open(1000))
    taken = Recorder()
    now(rest.body.deliver(taken))
    assert rest.content_range == ContentRange(1000, len(LARGE) - 1, len(LARGE))
    assert (rest.status, taken.data) == (206, LARGE[1000:])


def test_gone(clock: Clock) -> None:
    """What another mirror has deleted since cannot be opened, and is then not known any more."""
    contents, asked = counted(clock)
    opened(contents).close()
    distant = opened(contents)
    now(asked.delete([DATA]))
    with pytest.raises(Unreachable):
        now(distant.open(0))
    with pytest.raises(BrokenOff):
        now(distant.body(Descriptor(), [ContentRange(0, 1, len(LARGE))]).deliver(Recorder()))
    assert now(contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB)) is None


def test_spoilt(clock: Clock) -> None:
    """Wrong bytes are not given to their end, and are deleted; a wrong manifest is not given at all."""
    contents, asked = counted(clock)
    whole = [ContentRange(0, len(LARGE) - 1, len(LARGE))]
    for give in (
        lambda distant: now(distant.open(0)).body,
        lambda distant: distant.body(Descriptor(), whole),
    ):
        now(asked.put(KEY, LARGE[:-1] + b"?", {"blob": HERE.name}))
        clock.advance(ABSENT_TTL)
        taken = Recorder()
        with pytest.raises(BrokenOff):
            now(give(opened(contents)).deliver(taken))
        assert len(taken.data) < len(LARGE)
        assert not now(contents.holds(LARGE_DIGEST))
    now(asked.put(layout.data(DIGEST), b"other", {"manifest": HERE.name}))
    assert now(contents.open(HERE, DIGEST, ContentKind.MANIFEST)) is None
    assert not now(contents.holds(DIGEST))


def test_sent_there(clock: Clock) -> None:
    """Where clients are sent to the bucket opening takes one HEAD, then none."""
    contents, asked = counted(clock, lifetime=60.0)
    for _ in range(2):
        opened(contents).close()
    assert asked.requests == {"head": 1}
    plain, _ = counted(clock)
    assert now(opened(plain).presigned_url()) is None


def test_absence_is_remembered(clock: Clock) -> None:
    """For some seconds, unless it is put here meanwhile."""
    contents, asked = counted(clock)
    for kind in ContentKind:
        assert now(contents.open(HERE, DIGEST, kind)) is None
        assert not now(contents.holds(DIGEST))
    assert asked.requests == {"head": 1}
    now(contents.add(HERE, DIGEST, ContentKind.BLOB, SMALL))
    assert now(contents.holds(DIGEST))
    assert now(contents.open(ELSEWHERE, DIGEST, ContentKind.BLOB)) is None
    now(contents.write_link(ELSEWHERE, DIGEST, ContentKind.BLOB))
    assert now(contents.open(ELSEWHERE, DIGEST, ContentKind.BLOB)) is not None


def test_linked_while_it_is_asked_for(clock: Clock) -> None:
    """A link that is written while the bucket says that there is none counts."""
    store = MemoryStore()
    now(BucketContentStore(bucket(clock, store), clock).add(HERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    contents = BucketContentStore(bucket(clock, store, held := HeldThreads()), clock)
    opening = watch(contents.open(ELSEWHERE, LARGE_DIGEST, ContentKind.BLOB))
    held.run()
    linking = watch(contents.link(ELSEWHERE, LARGE_DIGEST, ContentKind.BLOB))
    held.run_last()
    assert linking == [True]
    held.run()
    (found,) = opening
    assert found is not None
    assert contents.is_known_link(ELSEWHERE, LARGE_DIGEST, ContentKind.BLOB)


def test_is_there(clock: Clock) -> None:
    """Whether something is there now is asked each time."""
    contents, asked = counted(clock)
    assert now(contents.exists(LARGE_DIGEST))
    now(asked.delete([DATA]))
    assert now(contents.holds(LARGE_DIGEST))
    assert not now(contents.exists(LARGE_DIGEST))
    assert not now(contents.holds(LARGE_DIGEST))


def test_connects_late(clock: Clock) -> None:
    """Nothing is connected to before something is asked: its threads would not outlive a fork."""
    connected: list[MemoryStore] = []

    def connect() -> MemoryStore:
        connected.append(MemoryStore())
        return connected[-1]

    asked = Bucket("the bucket", connect, clock, inline)
    assert not connected
    now(asked.get(KEY))
    now(asked.get(KEY))
    assert len(connected) == 1
