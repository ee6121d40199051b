"""Eviction keeps a store within its budget."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.reference import Tag
from dockmirror.store import layout, pins, write_behind
from dockmirror.store.eviction.budget import Budget, Shortfall, try_lock_usage_counter, wait_for_usage_counter
from dockmirror.store.eviction.eviction import CHECK_INTERVAL
from dockmirror.store.eviction.store_scan import StoreScan
from dockmirror.store.pins import Pin

from ..answering import now, watch
from ..stacks import logged
from ..test_docs import text
from .contract import ELSEWHERE, HERE, LATEST, read
from .stocked import HOUR, Stocked
from .threads import HeldThreads

DAY = 24 * HOUR
PLENTY = Budget(10**15)
NOTHING = Budget(0)


@pytest.fixture
def store(tmp_path: Path) -> Stocked:
    return Stocked(tmp_path)


def kilobyte(name: str) -> bytes:
    """Return a thousand bytes that are unique to this name."""
    return name.encode().ljust(1000)


def test_within_the_budget(store: Stocked) -> None:
    """Nothing is evicted within the budget; contents from before the start are counted."""
    digests = [store.blob(kilobyte(name), age=HOUR) for name in "abc"]
    eviction = store.evict(Budget(3000))
    assert (eviction.size, eviction.scans, eviction.evicted) == (3000, 1, 0)
    assert store.held(*digests) == [True] * 3


def test_least_recently_used_first(store: Stocked) -> None:
    """The least recently used contents are evicted until a tenth of the budget is spare."""
    ages = {name: HOUR + abs(5 - number) for number, name in enumerate("abcdefghijk")}
    digests = {name: store.blob(kilobyte(name), age) for name, age in ages.items()}
    eviction = store.evict(Budget(10_000))
    gone = [name for name, digest in digests.items() if store.held(digest) == [False]]
    assert set(gone) == {"a", "k"}
    assert (eviction.size, eviction.evicted, eviction.evicted_bytes) == (9000, 2, 2000)


def test_pending_uploads_last(store: Stocked) -> None:
    """A content that is not uploaded yet is evicted after everything else."""
    first, *others = (store.blob(kilobyte(name), age) for name, age in (("a", DAY), ("b", HOUR), ("c", HOUR)))
    write_behind.enqueue(
        store.root, write_behind.PendingContent(HERE, first, ContentKind.BLOB), store.clock.seconds()
    )
    store.evict(Budget(2000))
    assert store.held(first, *others).count(True) == 1
    assert store.held(first) == [True]
    store.evict(NOTHING)
    assert store.held(first) == [False]


def test_no_scan_within_the_budget(store: Stocked) -> None:
    """After the first scan all processes only add up sizes until these exceed the budget."""
    old = store.blob(kilobyte("old"), age=2 * HOUR)
    eviction, other = store.eviction(Budget(2500)), store.eviction(Budget(2500))
    store.clock.advance(CHECK_INTERVAL)
    assert (eviction.scans + other.scans, eviction.size, other.size) == (1, 1000, 1000)
    new = store.blob(kilobyte("new"), age=HOUR)
    eviction.add(1000)
    for _ in range(10):
        store.clock.advance(CHECK_INTERVAL)
    assert (eviction.scans + other.scans, eviction.size, other.size) == (1, 2000, 2000)
    newest = store.blob(kilobyte("newest"), age=HOUR)
    other.add(1000)
    for _ in range(2):
        store.clock.advance(CHECK_INTERVAL)
    assert (eviction.scans + other.scans, eviction.size, other.size) == (2, 2000, 2000)
    assert store.held(old, new, newest) == [False, True, True]


def test_scan_corrects_the_count(store: Stocked) -> None:
    """A wrong count evicts nothing, and a scan corrects it each day."""
    digest = store.blob(kilobyte("a"))
    eviction = store.eviction(Budget(2500))
    store.clock.advance(CHECK_INTERVAL)
    eviction.add(1_000_000)
    store.clock.advance(CHECK_INTERVAL)
    store.clock.advance(30)
    assert (eviction.size, store.held(digest)) == (1000, [True])
    os.truncate(store.root / layout.data(digest), 700)
    store.clock.advance(DAY)
    assert eviction.size == 700


def test_scans_pause(store: Stocked) -> None:
    """If nothing can be evicted yet, some time passes before the next scan."""
    digest = store.blob(kilobyte("a"), age=0)
    eviction = store.eviction(NOTHING)
    for _ in range(4):
        store.clock.advance(CHECK_INTERVAL)
    assert (eviction.scans, store.held(digest)) == (2, [True])
    store.clock.pump([CHECK_INTERVAL] * 12)
    assert (eviction.scans, store.held(digest)) == (5, [False])


def test_room_for_traffic(store: Stocked) -> None:
    """A steady stream of content takes the room of 160 seconds of it, as documented, and not more."""
    eviction = store.eviction(NOTHING)
    most = 0
    for number in range(40):
        store.clock.advance(1)
        store.blob(str(number).encode().ljust(10_000), age=0)
        eviction.add(10_000)
        most = max(most, store.size())
        store.clock.advance(CHECK_INTERVAL - 1)
    assert 140_000 < most <= 160_000
    for document in ("docs/explanation/caching.md", "docs/how-to/object-store.md"):
        assert "160 seconds" in text(document)


def test_manifest_before_its_layers(store: Stocked) -> None:
    """A layer stays as long as a manifest that refers to it, even if it was not used itself."""
    layers = [store.blob(kilobyte(name), age=9 * HOUR) for name in "abc"]
    young = store.image(*layers[:2], age=HOUR, tag="young")
    old = store.image(*layers[1:], age=5 * HOUR, tag="old")
    alone = store.blob(kilobyte("alone"), age=2 * HOUR)
    everything = [young, old, *layers, alone]
    steps = []
    while any(store.held(*everything)):
        store.evict(Budget(max(0, store.size() - 1)))
        steps.append(store.held(*everything))
    orders = [[i for i, held in enumerate(step) if not held] for step in steps]
    assert orders[-1] == [0, 1, 2, 3, 4, 5]
    for gone in orders:
        assert 1 in gone or 4 not in gone
        assert 0 in gone or not {2, 3} & set(gone)
        assert 5 in gone or 0 not in gone


def test_index_before_its_manifests(store: Stocked) -> None:
    """An index is evicted before its manifests."""
    layer = store.blob(kilobyte("layer"), age=9 * HOUR)
    child = store.image(layer, age=9 * HOUR)
    index = store.index(child, age=HOUR, tag="latest")
    other = store.blob(kilobyte("other"), age=5 * HOUR)
    found = []
    while any(store.held(index, child, layer, other)):
        store.evict(Budget(max(0, store.size() - 1)))
        found.append(store.held(index, child, layer, other))
    assert found[0] == [True, True, True, False]
    for one in found:
        assert one[:3] == sorted(one[:3])


def test_links_are_evicted(store: Stocked) -> None:
    """Links, tags and empty directories are evicted with the bytes."""
    kept = store.image(store.blob(kilobyte("kept"), age=0), age=0, tag="kept")
    now(store.tags.put(HERE, LATEST, kept))
    before = store.tree()
    layer = store.blob(kilobyte("a"))
    gone = store.image(layer, tag="gone")
    now(store.contents.link(ELSEWHERE, layer, ContentKind.BLOB))
    now(store.contents.link(ELSEWHERE, gone, ContentKind.MANIFEST))
    now(store.tags.put(ELSEWHERE, LATEST, gone))
    now(store.tags.put(HERE, LATEST, gone))
    now(store.tags.put(HERE, LATEST, kept))
    for digest in (layer, gone):
        store.age(digest, HOUR)
    store.evict(NOTHING)
    assert store.held(layer, gone, kept) == [False, False, True]
    assert store.tree() == before
    assert now(store.tags.get(ELSEWHERE, LATEST)) is None


def test_last_minute(store: Stocked) -> None:
    """Contents used in the last minute stay with everything they refer to."""
    layer = store.blob(kilobyte("layer"), age=9 * HOUR)
    manifest = store.image(layer, age=119 - CHECK_INTERVAL)
    other = store.blob(kilobyte("other"), age=120)
    store.evict(NOTHING)
    assert store.held(manifest, layer, other) == [True, True, False]


def test_uses_in_the_future(store: Stocked) -> None:
    """A content with a use in the future, from a wrong clock, can be evicted, after all others."""
    early, late = store.blob(kilobyte("early"), age=-9 * HOUR), store.blob(kilobyte("late"), age=HOUR)
    store.evict(Budget(1500))
    assert store.held(early, late) == [True, False]
    store.evict(NOTHING)
    assert store.held(early) == [False]


def test_readers_finish(store: Stocked) -> None:
    """A client that reads an evicted content reads it to its end."""
    data = kilobyte("a") * 100
    digest = store.blob(data)
    opened = now(store.contents.open(HERE, digest, ContentKind.BLOB))
    store.age(digest, HOUR)
    store.evict(NOTHING)
    assert store.held(digest) == [False]
    assert now(read(opened)) == data


@pytest.mark.parametrize("budget", [Budget(10**15, free_bytes=10**15), Budget(10**15, free_inodes=10**12)])
def test_disk_short(store: Stocked, budget: Budget) -> None:
    """The cache shrinks if others fill the disk or use up its inodes."""
    status = os.statvfs(store.root)
    if budget.free_inodes and not status.f_files:
        pytest.skip("the file system has no number of inodes")
    old, used = store.blob(kilobyte("old")), store.blob(kilobyte("used"), age=0)
    store.evict(budget)
    assert store.held(old, used) == [False, True]


def test_disk_short_is_logged(store: Stocked) -> None:
    """A full disk is logged once, and once more when it has room again."""
    eviction = store.eviction(Budget(10**15, free_bytes=10**15))
    with logged() as texts:
        for _ in range(5):
            store.clock.advance(60)
    assert len([text for text in texts if "everything evictable is evicted" in text]) == 1
    assert eviction.scans > 1
    eviction.set_budget(PLENTY)
    with logged() as texts:
        store.clock.advance(DAY)
        store.clock.advance(60)
    assert len([text for text in texts if "has enough free again" in text]) == 1
    now(eviction.stop())


def test_documents(store: Stocked) -> None:
    """Unused documents are evicted like contents."""
    for name in ("old", "used"):
        now(store.documents.write(name, kilobyte(name)))
    store.clock.advance(HOUR)
    now(store.documents.read("used"))
    eviction = store.evict(Budget(1999))
    assert now(store.documents.read("old")) is None
    assert now(store.documents.read("used")) is not None
    assert (eviction.size, eviction.evicted, eviction.evicted_bytes) == (1000, 0, 1000)


def test_partial_downloads(store: Stocked) -> None:
    """Partial downloads are counted and stay; abandoned ones are deleted."""
    digest = store.blob(kilobyte("a"))
    paths = [store.root / layout.growing("docker.io", Digest.of(name)) for name in (b"new", b"old")]
    for path, age in zip(paths, (2 * HOUR, 2 * DAY), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kilobyte("part"))
        when = store.clock.seconds() - age
        os.utime(path, (when, when))
    eviction = store.evict(Budget(1500))
    assert [path.exists() for path in paths] == [True, False]
    assert (eviction.size, eviction.abandoned, store.held(digest)) == (1000, 1, [False])


def test_deleted_partials_are_not_counted(store: Stocked) -> None:
    """Deleted partial downloads are not counted any more."""
    eviction = store.eviction(PLENTY)
    store.clock.advance(CHECK_INTERVAL)
    part = store.root / layout.growing("docker.io", Digest.of(b"old"))
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(kilobyte("part"))
    when = store.clock.seconds() - DAY + 3 * CHECK_INTERVAL
    os.utime(part, (when, when))
    eviction.add(1000)
    store.clock.advance(CHECK_INTERVAL)
    assert eviction.size == 1000
    store.clock.advance(3 * CHECK_INTERVAL)
    assert (eviction.size, eviction.abandoned) == (0, 1)


def test_dangling_links(store: Stocked) -> None:
    """A scan removes dangling links and their tags."""
    kept = store.image(store.blob(kilobyte("kept")), tag="kept")
    before = store.tree()
    gone = store.image(store.blob(kilobyte("gone")), tag="gone", repository=ELSEWHERE)
    blob = Digest.of(kilobyte("gone"))
    for digest in (gone, blob):
        (store.root / layout.data(digest)).unlink()
    store.evict(PLENTY)
    assert store.tree() == before
    assert store.held(kept) == [True]


def test_used_during_the_scan(store: Stocked) -> None:
    """A manifest that is used during the scan stays with its layers; others are evicted."""
    layers = [store.blob(kilobyte(name), age=9 * HOUR) for name in "ab"]
    child, other = store.image(layers[0], age=9 * HOUR), store.image(layers[1], age=8 * HOUR)
    index = store.index(child, age=9 * HOUR, tag="latest")
    walk = StoreScan(store.root, store.clock.seconds(), lambda: None)
    need = Shortfall(walk.measure())
    opened = now(store.contents.open(HERE, index, ContentKind.MANIFEST))
    assert opened is not None
    evicted = walk.evict(need)
    assert set(evicted.contents) == {other, layers[1]}
    assert store.held(index, child, layers[0]) == [True] * 3
    assert now(store.tags.get(HERE, LATEST)) is not None


def test_added_during_the_scan(store: Stocked) -> None:
    """A content that is added during the scan keeps its links."""
    walk = StoreScan(store.root, store.clock.seconds(), lambda: None)
    walk.measure()
    digest = store.image(store.blob(kilobyte("a")), tag="latest")
    walk.evict(Shortfall())
    assert now(store.contents.open(HERE, digest, ContentKind.MANIFEST)) is not None
    assert now(store.tags.get(HERE, LATEST)) is not None


def test_tag_moved_during_the_scan(store: Stocked) -> None:
    """A tag that moves to another manifest during the scan stays."""
    old = store.image(store.blob(kilobyte("old")), tag="latest")
    new = store.image(store.blob(kilobyte("new"), age=0), age=0)
    found: list[object] = []

    def check() -> None:
        if not found:
            found.append(now(store.tags.put(HERE, LATEST, new)))

    walk = StoreScan(store.root, store.clock.seconds(), check)
    need = Shortfall(1)
    walk.measure()
    now(store.tags.put(HERE, LATEST, old))
    found.clear()
    walk.evict(need)
    tagged = now(store.tags.get(HERE, LATEST))
    assert tagged is not None
    assert (tagged.digest, store.held(old)) == (new, [False])


def test_one_process_at_a_time(store: Stocked) -> None:
    """Bytes that were added while another process sweeps are counted later."""
    eviction = store.eviction(PLENTY)
    store.clock.advance(CHECK_INTERVAL)
    eviction.add(500)
    with try_lock_usage_counter(store.root):
        store.clock.advance(CHECK_INTERVAL)
        eviction.add(70)
        assert eviction.size == 0
    store.clock.advance(CHECK_INTERVAL)
    assert eviction.size == 570


def test_count_of_another_process(store: Stocked) -> None:
    """The count of another process is taken over, even while that process sweeps."""
    eviction = store.eviction(PLENTY)
    eviction.add(500)
    store.clock.advance(CHECK_INTERVAL)
    eviction.add(500)
    store.clock.advance(CHECK_INTERVAL)
    assert eviction.size == 500
    with wait_for_usage_counter(store.root) as figures:
        figures.add(-200)
        store.clock.advance(CHECK_INTERVAL)
        assert eviction.size == 300


def test_failing_check(store: Stocked) -> None:
    """A failing check is logged, and the next one runs nevertheless."""
    (store.root / layout.USAGE_COUNTER).mkdir(parents=True)
    eviction = store.eviction(PLENTY)
    with logged() as texts:
        eviction.add(500)
        store.clock.advance(CHECK_INTERVAL)
    assert any("kept within its budget: [Errno 21] Is a directory" in text for text in texts)
    (store.root / layout.USAGE_COUNTER).rmdir()
    store.blob(kilobyte("a"))
    store.clock.advance(CHECK_INTERVAL)
    assert eviction.size == 1000


def test_first_check(store: Stocked) -> None:
    """The first check comes after an interval."""
    threads = HeldThreads()
    eviction = store.eviction(PLENTY, threads)
    store.clock.advance(CHECK_INTERVAL - 1)
    assert threads.held == 0
    store.clock.advance(1)
    assert threads.held == 1
    store.clock.pump([CHECK_INTERVAL] * 10)
    assert threads.held == 1
    threads.run()
    assert eviction.scans == 1


def test_stopped(store: Stocked) -> None:
    """Stopping ends a scan under way, which evicts nothing any more."""
    digest = store.blob(kilobyte("a"))
    threads = HeldThreads()
    eviction = store.eviction(NOTHING, threads)
    store.clock.advance(CHECK_INTERVAL)
    outcome = watch(Deferred.fromCoroutine(eviction.stop()))
    assert outcome == []
    threads.run()
    assert outcome == [None]
    assert store.held(digest) == [True]
    store.clock.pump([CHECK_INTERVAL] * 3)
    assert (threads.held, eviction.scans) == (0, 0)
    assert not store.clock.getDelayedCalls()


def test_never_started(store: Stocked) -> None:
    """An eviction that was never started can be stopped."""
    eviction = store.eviction(PLENTY)
    now(eviction.stop())
    store.clock.advance(CHECK_INTERVAL)
    assert eviction.scans == 0


def test_unknown_files(store: Stocked) -> None:
    """Unknown files among the blobs, and malformed manifests, are left alone."""
    odd = layout.BLOBS / "sha256" / "zz" / "zz" / "data"
    for path in (odd, layout.BLOBS / "file", layout.REPOSITORIES / "file"):
        (store.root / path).parent.mkdir(parents=True, exist_ok=True)
        (store.root / path).touch()
    (store.root / layout.REPOSITORIES / "docker.io" / "foo" / "_uploads" / "1").mkdir(parents=True)
    before = store.tree()
    manifest = store.put(b"no JSON", HOUR, HERE, ContentKind.MANIFEST)
    now(store.tags.put(HERE, Tag("x"), manifest))
    store.evict(NOTHING)
    assert store.tree() == before


def test_pinned(store: Stocked) -> None:
    """Everything a pinned image needs stays until the image is unpinned; the rest is evicted."""
    layers = [store.blob(kilobyte(name), age=9 * HOUR) for name in "abc"]
    child, other = store.image(*layers[:2], age=9 * HOUR), store.image(layers[2], age=9 * HOUR)
    index = store.index(child, age=9 * HOUR, tag="pinned")
    pin = Pin(HERE, Tag("pinned"))
    pins.add_pin(store.root, pin)
    pinned = [index, child, *layers[:2]]
    eviction = store.evict(NOTHING)
    assert store.held(*pinned, other, layers[2]) == [*[True] * 4, False, False]
    assert eviction.size == store.size()
    store.evict(NOTHING)
    assert all(store.held(*pinned))
    pins.remove_pin(store.root, pin)
    store.evict(NOTHING)
    assert not any(store.held(*pinned))


def test_pinned_tag_that_moved(store: Stocked) -> None:
    """A pinned tag pins the manifest it names now."""
    layer = store.blob(kilobyte("shared"), age=9 * HOUR)
    old = store.image(layer, store.blob(kilobyte("old"), age=9 * HOUR), age=9 * HOUR, tag="pinned")
    new = store.image(layer, age=9 * HOUR, tag="pinned")
    pins.add_pin(store.root, Pin(HERE, Tag("pinned")))
    store.evict(NOTHING)
    assert store.held(old, new, layer) == [False, True, True]
