"""A disk in front of a bucket: it keeps the contract, and other machines have what one has fetched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from obstore.exceptions import GenericError
from obstore.store import MemoryStore
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dockmirror.interfaces import ContentKind, IBucketBlob, IContentStore, IDocumentStore, ITagStore, TagEntry
from dockmirror.oci.digest import Digest
from dockmirror.store import layout, write_behind
from dockmirror.store.bucket.bucket import MAX_BACKOFF, MIN_BACKOFF
from dockmirror.store.bucket.bucket_stores import BucketContentStore
from dockmirror.store.local_store import LocalDocumentStore, LocalTagStore
from dockmirror.store.tiered.tiered_stores import (
    BUCKET_CHECK_INTERVAL,
    REFRESH_TTL,
    REUPLOAD_INTERVAL,
    TieredDocumentStore,
)
from dockmirror.store.tiered.write_behind_queue import ARRIVAL_GRACE, WriteBehind

from ...answering import now, watch
from ..bucket.buckets import bucket
from ..contract import (
    DATA,
    DIGEST,
    HERE,
    LARGE,
    LARGE_DIGEST,
    LATEST,
    ContentsContract,
    DocumentsContract,
    TagsContract,
    read,
)
from ..threads import HeldThreads, inline
from .parts import EPOCH, Machine


@pytest.fixture
def clock() -> Clock:
    """Stands in November 2023."""
    clock = Clock()
    clock.advance(EPOCH)
    return clock


@pytest.fixture
def machines(tmp_path: Path, clock: Clock) -> tuple[Machine, Machine]:
    """Two, with nothing."""
    store = MemoryStore()
    roots = tmp_path / "one", tmp_path / "two"
    for root in roots:
        root.mkdir()
    return Machine(roots[0], store, clock), Machine(roots[1], store, clock)


Machines = tuple[Machine, Machine]


class TestContents(ContentsContract):
    """Nothing is given to the bucket meanwhile."""

    @pytest.fixture
    def contents(self, machines: Machines) -> IContentStore:
        """Empty."""
        return machines[0].contents


class TestTags(TagsContract):
    """Nothing is given to the bucket meanwhile."""

    @pytest.fixture
    def tags(self, tmp_path: Path, clock: Clock) -> ITagStore:
        """Empty."""
        return Machine(tmp_path, MemoryStore(), clock).tags


class TestDocuments(DocumentsContract):
    """Nothing is given to the bucket meanwhile."""

    @pytest.fixture
    def documents(self, machines: Machines) -> IDocumentStore:
        """Empty."""
        return machines[0].documents


def test_shared(machines: Machines, clock: Clock) -> None:
    """What one machine has uploaded the other has: contents, tags and documents."""
    one, two = machines
    now(one.contents.add(HERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    now(one.contents.add(HERE, DIGEST, ContentKind.MANIFEST, DATA))
    now(one.tags.put(HERE, LATEST, DIGEST))
    now(one.documents.write("name", DATA))
    confirmed = clock.seconds()
    assert now(two.contents.open(HERE, DIGEST, ContentKind.MANIFEST)) is None
    assert one.give() == 0
    clock.advance(BUCKET_CHECK_INTERVAL)
    assert now(read(now(two.contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB)))) == LARGE
    assert now(read(now(two.contents.open(HERE, DIGEST, ContentKind.MANIFEST)))) == DATA
    assert now(two.contents.open(HERE, DIGEST, ContentKind.BLOB)) is None
    assert now(two.tags.get(HERE, LATEST)) == TagEntry(DIGEST, confirmed)
    assert now(two.documents.read("name")) == DATA


def test_hot(machines: Machines) -> None:
    """What is near costs the bucket no request; of what is far what is small costs one, and is near then."""
    one, two = machines
    now(one.contents.add(HERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    now(one.contents.add(HERE, DIGEST, ContentKind.MANIFEST, DATA))
    one.give()
    one.bucket.requests.clear()
    for digest, kind in ((LARGE_DIGEST, ContentKind.BLOB), (DIGEST, ContentKind.MANIFEST)):
        assert now(read(now(one.contents.open(HERE, digest, kind)))) is not None
        assert now(one.contents.link(HERE, digest, kind))
    assert (one.give(), one.bucket.requests) == (0, {})
    for _ in range(3):
        assert now(read(now(two.contents.open(HERE, DIGEST, ContentKind.MANIFEST)))) == DATA
    assert two.bucket.requests == {"get": 1}
    assert now(two.near.holds(DIGEST))
    assert IBucketBlob.providedBy(now(two.contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB)))
    assert two.used == [DIGEST] * 3 + [LARGE_DIGEST]


def test_lost_disk(machines: Machines) -> None:
    """A machine that loses its disk has lost nothing that was uploaded."""
    one, _ = machines
    now(one.contents.add(HERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    one.give()
    shutil.rmtree(one.root)
    one.root.mkdir()
    assert now(read(now(one.contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB)))) == LARGE


def test_bytes_entitle_nobody(machines: Machines) -> None:
    """A link to what is only far is written there."""
    one, two = machines
    now(one.contents.add(HERE, LARGE_DIGEST, ContentKind.BLOB, LARGE))
    one.give()
    assert now(two.contents.open(HERE, LARGE_DIGEST, ContentKind.MANIFEST)) is None
    assert now(two.contents.holds(LARGE_DIGEST))
    assert now(two.contents.link(HERE, LARGE_DIGEST, ContentKind.MANIFEST))
    assert now(read(now(two.contents.open(HERE, LARGE_DIGEST, ContentKind.MANIFEST)))) == LARGE


def test_down(machines: Machines, tmp_path: Path, clock: Clock) -> None:
    """While the bucket is down what is near is served, uploads are kept, and given by who comes next."""
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
        assert one.give() == 3
    with pytest.raises(OSError, match="no route"):
        now(one.bucket.probe())
    restarted = Machine(one.root, two.store, clock)
    assert restarted.give() == 0
    assert now(read(now(two.contents.open(HERE, LARGE_DIGEST, ContentKind.BLOB)))) == LARGE
    now(restarted.bucket.probe())


def test_evicted_before(machines: Machines, clock: Clock) -> None:
    """What is gone from the disk is not uploaded, and nothing links to it."""
    one, two = machines
    now(one.contents.add(HERE, DIGEST, ContentKind.BLOB, DATA))
    (one.root / layout.data(DIGEST)).unlink()
    assert one.give() == 1  # it may be about to be there
    clock.advance(ARRIVAL_GRACE)
    assert one.give() == 0
    assert now(two.contents.open(HERE, DIGEST, ContentKind.BLOB)) is None


def test_large_file(machines: Machines) -> None:
    """A file of many parts is uploaded, once however many repositories have it."""
    one, two = machines
    data = LARGE * 20
    digest = type(LARGE_DIGEST).of(data)
    now(one.contents.add(HERE, digest, ContentKind.BLOB, data))
    now(one.contents.link(HERE, digest, ContentKind.MANIFEST))
    assert one.give() == 0
    assert one.bucket.requests["upload"] == 1
    for kind in ContentKind:
        opened = now(two.contents.open(HERE, digest, kind))
        assert opened is not None
        assert opened.size == len(data)


def test_later_tag(machines: Machines, clock: Clock) -> None:
    """The tag that was confirmed last counts; what is confirmed again and again is given once an hour."""
    one, two = machines
    now(one.tags.put(HERE, LATEST, DIGEST))
    clock.advance(BUCKET_CHECK_INTERVAL)
    now(two.tags.put(HERE, LATEST, LARGE_DIGEST))
    assert (one.give(), two.give()) == (0, 0)
    clock.advance(BUCKET_CHECK_INTERVAL)
    for machine in machines:
        tagged = now(machine.tags.get(HERE, LATEST))
        assert tagged is not None
        assert tagged.digest == LARGE_DIGEST
    now(two.tags.put(HERE, LATEST, LARGE_DIGEST))
    assert not write_behind.list_pending(two.root)
    clock.advance(REUPLOAD_INTERVAL)
    now(two.tags.put(HERE, LATEST, LARGE_DIGEST))
    assert len(write_behind.list_pending(two.root)) == 1


def test_asked_at_once(machines: Machines, tmp_path: Path, clock: Clock) -> None:
    """Of a tag or a document the bucket is asked once, and whoever asks meanwhile has its answer, too."""
    one, two = machines
    now(one.tags.put(HERE, LATEST, DIGEST))
    now(one.documents.write("name", DATA))
    assert one.give() == 0
    clock.advance(BUCKET_CHECK_INTERVAL)
    added = Machine(two.root, one.store, clock, held := HeldThreads())
    tags = [watch(added.tags.get(HERE, LATEST)) for _ in range(3)]
    documents = [watch(added.documents.read("name")) for _ in range(3)]
    while held.held:
        held.run()
    assert tags == [[TagEntry(DIGEST, EPOCH)]] * 3
    assert documents == [[DATA]] * 3
    assert added.bucket.requests == {"get": 2}


def test_asked_when_it_answers_again(machines: Machines, clock: Clock) -> None:
    """A bucket that failed is asked for tags and documents as soon as it is asked for anything."""
    one, two = machines
    now(one.tags.put(HERE, LATEST, DIGEST))
    now(one.documents.write("name", DATA))
    assert one.give() == 0
    two.threads.down = True
    assert now(two.tags.get(HERE, LATEST)) is None
    assert now(two.documents.read("name")) is None
    two.threads.down = False
    clock.advance(MIN_BACKOFF)
    assert now(two.tags.get(HERE, LATEST)) == TagEntry(DIGEST, EPOCH)
    assert now(two.documents.read("name")) == DATA


def test_forgotten_tag(machines: Machines, clock: Clock) -> None:
    """A tag that one machine has forgotten is not found in the bucket again."""
    one, two = machines
    now(one.tags.put(HERE, LATEST, DIGEST))
    one.give()
    now(one.tags.forget(HERE, LATEST))
    assert now(one.tags.get(HERE, LATEST)) is None
    assert now(two.tags.get(HERE, LATEST)) is None


def test_forgotten_before_it_was_given(machines: Machines, clock: Clock) -> None:
    """A tag that is forgotten is not given any more: others would find again what was deleted."""
    one, two = machines
    now(one.tags.put(HERE, LATEST, DIGEST))
    now(one.tags.forget(HERE, LATEST))
    assert one.give() == 0
    assert now(two.tags.get(HERE, LATEST)) is None


@pytest.mark.parametrize("digests", [(DIGEST, LARGE_DIGEST), (LARGE_DIGEST, DIGEST)])
def test_moved_before_it_was_given(machines: Machines, clock: Clock, digests: tuple[Digest, Digest]) -> None:
    """Of a tag that has moved since the bucket was down, it is given what it names now."""
    one, two = machines
    one.threads.down = True
    for digest in digests:
        now(one.tags.put(HERE, LATEST, digest))
        one.give()
        clock.advance(MAX_BACKOFF)
    one.threads.down = False
    assert one.give() == 0
    tagged = now(two.tags.get(HERE, LATEST))
    assert tagged is not None
    assert tagged.digest == digests[1]


def test_what_is_on_its_way(machines: Machines, clock: Clock) -> None:
    """Is waited for where something else fails: else it would be given a second time beside that."""
    one, _ = machines
    for name in ("first", "second"):
        now(one.documents.write(name, b"1"))
    asked = bucket(clock, MemoryStore(), held := HeldThreads())
    tags, documents = LocalTagStore(one.root, clock, inline), LocalDocumentStore(one.root, clock, inline)
    uploads = WriteBehind(one.root, BucketContentStore(asked, clock), tags, documents, clock, inline)
    looking = watch(uploads.run())
    held.fail(GenericError("HTTP error"))
    assert looking == []
    held.run()
    assert looking == [None]
    assert len(write_behind.list_pending(one.root)) == 1


def test_documents(machines: Machines, clock: Clock) -> None:
    """What another machine has written is seen after a while; what is owed is not overwritten by it."""
    one, two = machines
    now(one.documents.write("name", b"1"))
    one.give()
    assert now(two.documents.read("name")) == b"1"
    now(one.documents.write("name", b"2"))
    one.give()
    assert now(two.documents.read("name")) == b"1"
    clock.advance(REFRESH_TTL)
    now(two.documents.read("name"))
    assert now(two.documents.read("name")) == b"2"
    now(two.documents.write("name", b"3"))
    clock.advance(REFRESH_TTL)
    now(two.documents.read("name"))
    assert now(two.documents.read("name")) == b"3"
    two.give()
    clock.advance(REFRESH_TTL)
    now(one.documents.read("name"))
    assert now(one.documents.read("name")) == b"3"


def test_written_while_it_is_refreshed(machines: Machines, clock: Clock) -> None:
    """What this machine has written counts, also where the bucket's is just being brought."""
    one, two = machines
    now(one.documents.write("name", b"1"))
    one.give()
    clock.advance(REFRESH_TTL)
    noted: Deferred[None] = Deferred()

    async def owe(each: write_behind.PendingWrite) -> None:
        await noted
        await one.owe(each)

    near = LocalDocumentStore(one.root, clock, inline)
    writing = watch(TieredDocumentStore(near, one.far_documents, owe, one.is_owed, clock).write("name", b"2"))
    now(one.documents.read("name"))
    noted.callback(None)
    assert writing == [None]
    assert now(one.documents.read("name")) == b"2"
    one.give()
    assert now(two.documents.read("name")) == b"2"


def test_given_before_it_is_written(machines: Machines, clock: Clock) -> None:
    """What is given while it is being written is given again."""
    one, two = machines
    near = LocalDocumentStore(one.root, clock, held := HeldThreads())
    writing = watch(
        TieredDocumentStore(near, one.far_documents, one.owe, one.is_owed, clock).write("name", b"1")
    )
    one.give()
    while held.held:
        held.run()
    assert writing == [None]
    assert one.give() == 0
    assert now(two.documents.read("name")) == b"1"
