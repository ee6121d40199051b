"""A mirror that is killed before any of its requests to a bucket leaves nothing wrong."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest
from attrs import frozen
from obstore.store import MemoryStore, ObjectStore
from twisted.internet.task import Clock

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Tag
from dockmirror.store import layout, write_behind
from dockmirror.store.bucket.bucket import Bucket
from dockmirror.store.bucket.bucket_expiry import (
    DAY,
    BucketExpiry,
    LastUsedJournal,
    parse_contents,
    parse_links,
)
from dockmirror.store.bucket.bucket_stores import BucketContentStore, BucketTagStore
from dockmirror.store.bucket.bucket_uploader import BucketUploader
from dockmirror.store.local_store import LocalStore

from ...answering import now
from ..stocked import HERE, LATEST, Stocked, manifest_of
from ..threads import inline

T = TypeVar("T")
KEPT, NEW, LARGE = b"kept " * 300, b"new " * 300, b"large" * 2_000_000
KEPT_IMAGE, NEW_IMAGE = (manifest_of(Digest.of(data)) for data in (KEPT, NEW))


class Killed(BaseException):
    """Raised instead of killing the process."""


class Dying:
    """Runs a number of calls and is killed before the next.

    :ivar left: the number of remaining calls.
    """

    def __init__(self, left: float) -> None:
        self.left = left

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]:

        async def run() -> T:
            self.left -= 1
            if self.left < 0:
                raise Killed
            return call()

        return run()


class Mirror:
    """A mirror that will be killed; it may be the next one on the same disk."""

    def __init__(self, store: ObjectStore, root: Path, threads: Dying) -> None:
        self.root, self.clock, self.threads = root, Clock(), threads
        self.clock.advance(time.time())
        self.bucket = Bucket("the bucket", lambda: store, self.clock, threads)
        self.contents = BucketContentStore(self.bucket, self.clock)
        self.tags = BucketTagStore(self.bucket, self.clock)
        self.local = Stocked(root)
        self.local.clock.advance(time.time() - self.local.clock.seconds())

    def put(self, manifest: bytes, blob: bytes, tag: str) -> None:
        """Store an image in the order of a pull."""
        now(self.contents.add(HERE, Digest.of(blob), ContentKind.BLOB, blob))
        now(self.contents.add(HERE, Digest.of(manifest), ContentKind.MANIFEST, manifest))
        now(self.tags.put(HERE, Tag(tag), Digest.of(manifest)))

    def upload(self) -> None:
        """Upload a queued blob of several parts."""
        for kind in (ContentKind.BLOB, ContentKind.MANIFEST):
            write_behind.enqueue(
                self.root, write_behind.PendingContent(HERE, self.local.put(LARGE, 0, HERE, kind), kind), 0.0
            )
        local = LocalStore.open(self.root, self.clock, inline)
        now(BucketUploader(local, self.contents, self.clock, inline).run())

    def age(self) -> None:
        """Expire contents a month later; only the kept one was used."""
        self.clock.advance(30 * DAY)
        uses = LastUsedJournal(self.bucket, self.clock)
        uses.record(Digest.of(KEPT_IMAGE))
        now(uses.flush())
        now(BucketExpiry(self.bucket, uses, self.clock, 20 * DAY)._expire())

    def holds(self, data: bytes) -> bool:
        return now(self.contents.exists(Digest.of(data)))

    def names(self, tag: str, manifest: bytes) -> bool:
        tagged = now(self.tags.get(HERE, Tag(tag)))
        return tagged is not None and tagged.digest == Digest.of(manifest)


@frozen
class Work:
    """Work during which the mirror is killed, its outcome, and its least number of requests."""

    step: Callable[[Mirror], object]
    done: Callable[[Mirror], bool]
    requests: int
    before: Callable[[Mirror], object] = lambda mirror: None


WORKS = {
    "put": Work(lambda m: m.put(NEW_IMAGE, NEW, "new"), lambda m: m.names("new", NEW_IMAGE), 6),
    "tag anew": Work(
        lambda m: now(m.tags.put(HERE, LATEST, Digest.of(NEW_IMAGE))),
        lambda m: m.names("latest", NEW_IMAGE),
        2,
        lambda m: m.put(NEW_IMAGE, NEW, "new"),
    ),
    "forget": Work(
        lambda m: now(m.tags.forget(HERE, LATEST)), lambda m: not m.names("latest", KEPT_IMAGE), 2
    ),
    "upload": Work(lambda m: m.upload(), lambda m: m.holds(LARGE), 4),
    "age": Work(
        lambda m: m.age(),
        lambda m: not m.holds(NEW) and not m.names("new", NEW_IMAGE),
        10,
        lambda m: m.put(NEW_IMAGE, NEW, "new"),
    ),
}


def check(mirror: Mirror) -> None:
    """Check that links are not dangling, contents are right, and nothing was lost.

    :raises AssertionError: if not.
    """
    listed = now(mirror.bucket.list(layout.BLOBS))
    contents = dict(parse_contents(listed))
    for digest, each in contents.items():
        read = now(mirror.bucket.read(layout.BLOBS / each.key.partition("blobs/")[2]))
        assert read is not None
        assert digest.matches(read[0])
    links = list(parse_links(now(mirror.bucket.list(layout.REPOSITORIES))))
    manifests = {link.digest for link in links if link.is_manifest}
    assert {link.digest for link in links if link.tag_directory is None} <= contents.keys()
    for tag in ("latest", "new"):
        tagged = now(mirror.tags.get(HERE, Tag(tag)))
        assert tagged is None or tagged.digest in manifests
    assert mirror.holds(KEPT)
    assert mirror.holds(KEPT_IMAGE)


@pytest.fixture(params=["memory", pytest.param("seaweedfs", marks=pytest.mark.integration)])
def new_store(request: pytest.FixtureRequest) -> Callable[[], ObjectStore]:
    """Return a function that makes an empty bucket."""
    return MemoryStore if request.param == "memory" else request.getfixturevalue("seaweedfs").store


@pytest.mark.parametrize("name", WORKS)
def test_a_mirror_may_be_killed_at_any_time(
    new_store: Callable[[], ObjectStore], tmp_path: Path, name: str
) -> None:
    """The mirror is killed before each request of the work, and the next one completes it."""
    work = WORKS[name]
    for number in count():
        store, root = new_store(), tmp_path / str(number)
        root.mkdir()
        whole = Mirror(store, root, Dying(float("inf")))
        whole.put(KEPT_IMAGE, KEPT, "latest")
        work.before(whole)
        try:
            work.step(Mirror(store, root, Dying(number)))
        except Killed:
            check(whole)
            work.step(Mirror(store, root, Dying(float("inf"))))
            check(whole)
            assert work.done(whole)
            continue
        assert work.done(whole)
        assert number >= work.requests
        return
