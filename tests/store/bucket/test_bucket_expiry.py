"""Contents that were not used for long are deleted from a bucket with their links."""

from __future__ import annotations

import time

import pytest
from obstore.store import MemoryStore
from twisted.internet.task import Clock

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Repository, Tag
from dockmirror.store import layout
from dockmirror.store.bucket.bucket_expiry import (
    DAY,
    EXPIRY_CHECK_INTERVAL,
    FLUSH_INTERVAL,
    RECORD_INTERVAL,
    BucketExpiry,
    BucketMaintenance,
    ExpiryResult,
    LastUsedJournal,
)
from dockmirror.store.bucket.bucket_stores import BucketContentStore, BucketTagStore

from ...answering import now
from ..stocked import ELSEWHERE, HERE, LATEST, manifest_of, read_tag
from .machines import bucket

CONFIG, LAYER, OTHER = b"config", b"layer", b"other"
MONTH = 30 * DAY


class Mirror:
    """A mirror that shares the bucket; objects are stored at the real time."""

    def __init__(self, store: MemoryStore, clock: Clock, age: float = MONTH) -> None:
        self.bucket = bucket(clock, store)
        self.contents = BucketContentStore(self.bucket, clock)
        self.tags = BucketTagStore(self.bucket, clock)
        self.uses = LastUsedJournal(self.bucket, clock)
        self.aging = BucketExpiry(self.bucket, self.uses, clock, age)

    def put(self, data: bytes, kind: ContentKind = ContentKind.BLOB, place: Repository = HERE) -> Digest:
        digest = Digest.of(data)
        now(self.contents.add(place, digest, kind, data))
        return digest

    def keys(self) -> set[str]:
        """Return the keys below distribution's tree."""
        return {each.key for each in now(self.bucket.list(layout.BLOBS.parent))}

    def holds(self, *contents: bytes) -> list[bool]:
        return [now(self.contents.holds(Digest.of(data))) for data in contents]


@pytest.fixture
def clock() -> Clock:
    """The real time, standing still."""
    clock = Clock()
    clock.advance(time.time())
    return clock


@pytest.fixture
def mirrors(clock: Clock) -> tuple[Mirror, Mirror]:
    store = MemoryStore()
    return Mirror(store, clock), Mirror(store, clock)


Mirrors = tuple[Mirror, Mirror]


@pytest.mark.parametrize(("age", "passed"), [(MONTH, MONTH - DAY), (0.0, DAY - 60)])
def test_recent_contents(clock: Clock, age: float, passed: float) -> None:
    """Contents that were put recently stay, used or not; those of the last day whatever age is set."""
    one = Mirror(MemoryStore(), clock, age)
    one.put(LAYER)
    clock.advance(passed)
    assert now(one.aging.run()) == ExpiryResult(0, 0)
    assert one.holds(LAYER) == [True]


def test_unused_image(mirrors: Mirrors, clock: Clock) -> None:
    """An unused image is deleted with its tag and its links."""
    one, _ = mirrors
    image = manifest_of(one.put(CONFIG), one.put(LAYER))
    now(one.tags.put(HERE, LATEST, one.put(image, ContentKind.MANIFEST)))
    one.put(LAYER, place=ELSEWHERE)
    clock.advance(MONTH + 1)
    assert now(one.aging.run()) == ExpiryResult(3, len(CONFIG + LAYER + image))
    assert one.keys() == set()


def test_used_contents(mirrors: Mirrors, clock: Clock) -> None:
    """Contents that any mirror has used stay, and a manifest keeps what it refers to."""
    one, two = mirrors
    image = manifest_of(one.put(CONFIG), one.put(LAYER))
    digest = one.put(image, ContentKind.MANIFEST)
    now(one.tags.put(HERE, LATEST, digest))
    one.put(OTHER)
    clock.advance(MONTH - DAY)
    two.uses.record(digest)
    now(two.uses.flush())
    clock.advance(2 * DAY)
    assert now(one.aging.run()) == ExpiryResult(1, len(OTHER))
    assert one.holds(image, CONFIG, LAYER, OTHER) == [True, True, True, False]
    assert now(one.tags.get(HERE, LATEST)) is not None
    clock.advance(MONTH)
    assert now(two.aging.run()) == ExpiryResult(3, len(CONFIG + LAYER + image))


def test_moved_tag(mirrors: Mirrors, clock: Clock) -> None:
    """A moved tag loses its expired history and keeps its target."""
    one, _ = mirrors
    old, new = (one.put(manifest_of(one.put(data)), ContentKind.MANIFEST) for data in (OTHER, LAYER))
    now(one.tags.put(HERE, LATEST, old))
    now(one.tags.put(HERE, LATEST, new))
    now(one.tags.put(HERE, Tag("old"), old))
    clock.advance(MONTH + 1)
    one.uses.record(new)
    now(one.uses.flush())
    assert now(one.aging.run()) is not None
    assert read_tag(one.tags) == new
    assert now(one.tags.get(HERE, Tag("old"))) is None


def test_one_mirror_a_day(mirrors: Mirrors, clock: Clock) -> None:
    """One mirror expires contents on each day."""
    one, two = mirrors
    assert now(one.aging.run()) == ExpiryResult(0, 0)
    assert now(two.aging.run()) is None
    clock.advance(DAY)
    assert now(two.aging.run()) == ExpiryResult(0, 0)
    assert now(one.aging.run()) is None
    assert len(now(one.bucket.list(layout.EXPIRY_RUNS))) == 1


def test_journal_is_compacted(mirrors: Mirrors, clock: Clock) -> None:
    """The journal is compacted to one object; a use is recorded once in a while."""
    one, two = mirrors
    digests = [Digest.of(data) for data in (CONFIG, LAYER)]
    for mirror in mirrors:
        for digest in digests:
            mirror.uses.record(digest)
        now(mirror.uses.flush())
        now(mirror.uses.flush())
    assert len(now(one.bucket.list(layout.LAST_USED))) == 2
    known = now(one.uses.load(0.0))
    assert set(known) == set(digests)
    assert len(now(one.bucket.list(layout.LAST_USED))) == 1
    assert now(two.uses.load(0.0)) == known
    one.uses.record(digests[0])
    now(one.uses.flush())
    assert len(now(one.bucket.list(layout.LAST_USED))) == 1
    clock.advance(RECORD_INTERVAL)
    one.bucket.health.record_failure("down")
    one.uses.record(digests[0])
    with pytest.raises(OSError, match="down"):
        now(one.uses.flush())
    one.bucket.health.record_success()
    now(one.uses.flush())
    assert len(now(one.bucket.list(layout.LAST_USED))) == 2
    assert now(one.uses.load(clock.seconds() - 1)).keys() == {digests[0]}


def test_periodic_maintenance(mirrors: Mirrors, clock: Clock) -> None:
    """Uses are written each minute and expiry is checked each hour, until the service stops."""
    one, _ = mirrors
    maintenance = BucketMaintenance(one.uses, one.aging, clock)
    maintenance.startService()
    assert one.bucket.requests == {}
    one.uses.record(Digest.of(b"1"))
    clock.advance(FLUSH_INTERVAL - 1)
    one.bucket.health.record_failure("down")
    clock.advance(1)
    assert one.bucket.requests == {}
    clock.advance(FLUSH_INTERVAL)
    assert len(now(one.bucket.list(layout.LAST_USED))) == 1
    clock.pump([EXPIRY_CHECK_INTERVAL / 60] * 60)
    assert len(now(one.bucket.list(layout.EXPIRY_RUNS))) == 1
    maintenance.stopService()
    assert not clock.getDelayedCalls()
