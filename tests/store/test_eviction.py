"""What goes when the budget is spent."""

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
    """Empty."""
    return Stocked(tmp_path)


def kilobyte(name: str) -> bytes:
    """A thousand bytes that are of this name alone."""
    return name.encode().ljust(1000)


def test_within_the_budget(store: Stocked) -> None:
    """Nothing goes; what was held before the start is counted in."""
    digests = [store.blob(kilobyte(name), age=HOUR) for name in "abc"]
    eviction = store.evict(Budget(3000))
    assert (eviction.held, eviction.walks, eviction.evicted) == (3000, 1, 0)
    assert store.held(*digests) == [True] * 3


def test_least_recently_used(store: Stocked) -> None:
    """Goes first, until a tenth of the budget is spare."""
    ages = {name: HOUR + abs(5 - number) for number, name in enumerate("abcdefghijk")}
    digests = {name: store.blob(kilobyte(name), age) for name, age in ages.items()}
    eviction = store.evict(Budget(10_000))
    gone = [name for name, digest in digests.items() if store.held(digest) == [False]]
    assert set(gone) == {"a", "k"}
    assert (eviction.held, eviction.evicted, eviction.evicted_bytes) == (9000, 2, 2000)


def test_owed_to_a_bucket(store: Stocked) -> None:
    """What was not uploaded yet goes after all else, however long ago it was used."""
    first, *others = (store.blob(kilobyte(name), age) for name, age in (("a", DAY), ("b", HOUR), ("c", HOUR)))
    write_behind.enqueue(
        store.root, write_behind.PendingContent(HERE, first, ContentKind.BLOB), store.clock.seconds()
    )
    store.evict(Budget(2000))
    assert store.held(first, *others).count(True) == 1
    assert store.held(first) == [True]
    store.evict(NOTHING)
    assert store.held(first) == [False]


def test_counted_cheaply(store: Stocked) -> None:
    """After the first walk only sums are made, in whichever process, until they pass the budget."""
    old = store.blob(kilobyte("old"), age=2 * HOUR)
    eviction, other = store.eviction(Budget(2500)), store.eviction(Budget(2500))
    store.clock.advance(CHECK_INTERVAL)
    assert (eviction.walks + other.walks, eviction.held, other.held) == (1, 1000, 1000)
    new = store.blob(kilobyte("new"), age=HOUR)
    eviction.add(1000)
    for _ in range(10):
        store.clock.advance(CHECK_INTERVAL)
    assert (eviction.walks + other.walks, eviction.held, other.held) == (1, 2000, 2000)
    newest = store.blob(kilobyte("newest"), age=HOUR)
    other.add(1000)
    for _ in range(2):
        store.clock.advance(CHECK_INTERVAL)
    assert (eviction.walks + other.walks, eviction.held, other.held) == (2, 2000, 2000)
    assert store.held(old, new, newest) == [False, True, True]


def test_corrected_by_a_walk(store: Stocked) -> None:
    """What was counted wrong is not evicted for, and is counted anew every day."""
    digest = store.blob(kilobyte("a"))
    eviction = store.eviction(Budget(2500))
    store.clock.advance(CHECK_INTERVAL)
    eviction.add(1_000_000)
    store.clock.advance(CHECK_INTERVAL)
    store.clock.advance(30)
    assert (eviction.held, store.held(digest)) == (1000, [True])
    os.truncate(store.root / layout.data(digest), 700)
    store.clock.advance(DAY)
    assert eviction.held == 700


def test_not_all_the_time(store: Stocked) -> None:
    """Where nothing can go yet, some time passes before the next walk."""
    digest = store.blob(kilobyte("a"), age=0)
    eviction = store.eviction(NOTHING)
    for _ in range(4):
        store.clock.advance(CHECK_INTERVAL)
    assert (eviction.walks, store.held(digest)) == (2, [True])
    store.clock.pump([CHECK_INTERVAL] * 12)
    assert (eviction.walks, store.held(digest)) == (5, [False])


def test_room_for_traffic(store: Stocked) -> None:
    """Content that keeps coming takes the room of 160 seconds of it, as the documents say, and not more."""
    eviction = store.eviction(NOTHING)
    most = 0
    for number in range(40):
        store.clock.advance(1)
        store.blob(str(number).encode().ljust(10_000), age=0)
        eviction.add(10_000)
        most = max(most, store.size())
        store.clock.advance(CHECK_INTERVAL - 1)
    assert 140_000 < most <= 160_000
    for document in ("docs/caching.md", "docs/object-store.md"):
        assert "160 seconds" in text(document)


def test_manifest_before_its_layers(store: Stocked) -> None:
    """A layer stays as long as a manifest that refers to it, however long it was not asked for itself."""
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
    """And these before their layers."""
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


def test_nothing_is_left(store: Stocked) -> None:
    """With the bytes go their links, their tags and the directories that held nothing else."""
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
    """What may have been used in the last minute stays, with what it refers to, whatever the need."""
    layer = store.blob(kilobyte("layer"), age=9 * HOUR)
    manifest = store.image(layer, age=119 - CHECK_INTERVAL)
    other = store.blob(kilobyte("other"), age=120)
    store.evict(NOTHING)
    assert store.held(manifest, layer, other) == [True, True, False]


def test_the_future(store: Stocked) -> None:
    """What seems to have been used in the future, by a clock that was wrong, can go; last of all."""
    early, late = store.blob(kilobyte("early"), age=-9 * HOUR), store.blob(kilobyte("late"), age=HOUR)
    store.evict(Budget(1500))
    assert store.held(early, late) == [True, False]
    store.evict(NOTHING)
    assert store.held(early) == [False]


def test_readers_finish(store: Stocked) -> None:
    """Whoever has opened a content reads it to its end."""
    data = kilobyte("a") * 100
    digest = store.blob(data)
    opened = now(store.contents.open(HERE, digest, ContentKind.BLOB))
    store.age(digest, HOUR)
    store.evict(NOTHING)
    assert store.held(digest) == [False]
    assert now(read(opened)) == data


@pytest.mark.parametrize("budget", [Budget(10**15, free_bytes=10**15), Budget(10**15, free_inodes=10**12)])
def test_disk_short(store: Stocked, budget: Budget) -> None:
    """Where others have filled the disk, or taken its inodes, the cache gives way."""
    status = os.statvfs(store.root)
    if budget.free_inodes and not status.f_files:
        pytest.skip("the file system has no number of inodes")
    old, used = store.blob(kilobyte("old")), store.blob(kilobyte("used"), age=0)
    store.evict(budget)
    assert store.held(old, used) == [False, True]


def test_disk_short_is_told(store: Stocked) -> None:
    """Once, and once more when it is over: a cache that keeps nothing looks like a slow mirror."""
    eviction = store.eviction(Budget(10**15, free_bytes=10**15))
    with logged() as texts:
        for _ in range(5):
            store.clock.advance(60)
    assert len([text for text in texts if "everything evictable is evicted" in text]) == 1
    assert eviction.walks > 1
    eviction.set_budget(PLENTY)
    with logged() as texts:
        store.clock.advance(DAY)
        store.clock.advance(60)
    assert len([text for text in texts if "has enough free again" in text]) == 1
    now(eviction.stop())


def test_documents(store: Stocked) -> None:
    """Go like contents, when they have not been used for long."""
    for name in ("old", "used"):
        now(store.documents.write(name, kilobyte(name)))
    store.clock.advance(HOUR)
    now(store.documents.read("used"))
    eviction = store.evict(Budget(1999))
    assert now(store.documents.read("old")) is None
    assert now(store.documents.read("used")) is not None
    assert (eviction.held, eviction.evicted, eviction.evicted_bytes) == (1000, 0, 1000)


def test_parts(store: Stocked) -> None:
    """Of blobs on their way in are counted, and stay; those of yesterday are dropped."""
    digest = store.blob(kilobyte("a"))
    paths = [store.root / layout.growing("docker.io", Digest.of(name)) for name in (b"new", b"old")]
    for path, age in zip(paths, (2 * HOUR, 2 * DAY), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kilobyte("part"))
        when = store.clock.seconds() - age
        os.utime(path, (when, when))
    eviction = store.evict(Budget(1500))
    assert [path.exists() for path in paths] == [True, False]
    assert (eviction.held, eviction.dropped, store.held(digest)) == (1000, 1, [False])


def test_parts_that_are_dropped(store: Stocked) -> None:
    """Are not counted any more."""
    eviction = store.eviction(PLENTY)
    store.clock.advance(CHECK_INTERVAL)
    part = store.root / layout.growing("docker.io", Digest.of(b"old"))
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(kilobyte("part"))
    when = store.clock.seconds() - DAY + 3 * CHECK_INTERVAL
    os.utime(part, (when, when))
    eviction.add(1000)
    store.clock.advance(CHECK_INTERVAL)
    assert eviction.held == 1000
    store.clock.advance(3 * CHECK_INTERVAL)
    assert (eviction.held, eviction.dropped) == (0, 1)


def test_links_to_nothing(store: Stocked) -> None:
    """Are removed when a walk is made, with their tags."""
    kept = store.image(store.blob(kilobyte("kept")), tag="kept")
    before = store.tree()
    gone = store.image(store.blob(kilobyte("gone")), tag="gone", repository=ELSEWHERE)
    blob = Digest.of(kilobyte("gone"))
    for digest in (gone, blob):
        (store.root / layout.data(digest)).unlink()
    store.evict(PLENTY)
    assert store.tree() == before
    assert store.held(kept) == [True]


def test_used_since_it_was_chosen(store: Stocked) -> None:
    """A manifest that is used while the walk goes on stays, and so do its layers; others go."""
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


def test_come_since_it_was_counted(store: Stocked) -> None:
    """What is added while the walk goes on keeps its links."""
    walk = StoreScan(store.root, store.clock.seconds(), lambda: None)
    walk.measure()
    digest = store.image(store.blob(kilobyte("a")), tag="latest")
    walk.evict(Shortfall())
    assert now(store.contents.open(HERE, digest, ContentKind.MANIFEST)) is not None
    assert now(store.tags.get(HERE, LATEST)) is not None


def test_tagged_anew(store: Stocked) -> None:
    """A tag that names another manifest by the time that its old one goes stays."""
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


def test_one_at_a_time(store: Stocked) -> None:
    """While another process looks, what was added here is kept in mind."""
    eviction = store.eviction(PLENTY)
    store.clock.advance(CHECK_INTERVAL)
    eviction.add(500)
    with try_lock_usage_counter(store.root):
        store.clock.advance(CHECK_INTERVAL)
        eviction.add(70)
        assert eviction.held == 0
    store.clock.advance(CHECK_INTERVAL)
    assert eviction.held == 570


def test_counted_by_another(store: Stocked) -> None:
    """What another process has counted is known here, also while that looks."""
    eviction = store.eviction(PLENTY)
    eviction.add(500)
    store.clock.advance(CHECK_INTERVAL)
    eviction.add(500)
    store.clock.advance(CHECK_INTERVAL)
    assert eviction.held == 500
    with wait_for_usage_counter(store.root) as figures:
        figures.add(-200)
        store.clock.advance(CHECK_INTERVAL)
        assert eviction.held == 300


def test_trouble(store: Stocked) -> None:
    """A look that fails is logged, and the next one is made all the same."""
    (store.root / layout.USAGE_COUNTER).mkdir(parents=True)
    eviction = store.eviction(PLENTY)
    with logged() as texts:
        eviction.add(500)
        store.clock.advance(CHECK_INTERVAL)
    assert any("kept within its budget: [Errno 21] Is a directory" in text for text in texts)
    (store.root / layout.USAGE_COUNTER).rmdir()
    store.blob(kilobyte("a"))
    store.clock.advance(CHECK_INTERVAL)
    assert eviction.held == 1000


def test_first_look(store: Stocked) -> None:
    """Nothing is looked at before anybody is served."""
    threads = HeldThreads()
    eviction = store.eviction(PLENTY, threads)
    store.clock.advance(CHECK_INTERVAL - 1)
    assert threads.held == 0
    store.clock.advance(1)
    assert threads.held == 1
    store.clock.pump([CHECK_INTERVAL] * 10)
    assert threads.held == 1
    threads.run()
    assert eviction.walks == 1


def test_stopped(store: Stocked) -> None:
    """A walk that is under way ends when it is told to, and evicts nothing any more; then it is stopped."""
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
    assert (threads.held, eviction.walks) == (0, 0)
    assert not store.clock.getDelayedCalls()


def test_never_started(store: Stocked) -> None:
    """What was never started can be stopped."""
    eviction = store.eviction(PLENTY)
    now(eviction.stop())
    store.clock.advance(CHECK_INTERVAL)
    assert eviction.walks == 0


def test_not_understood(store: Stocked) -> None:
    """What lies among the blobs and is none, or a manifest that is none, is left alone."""
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
    """What a pinned image needs stays, however old it is, until it is pinned no more; all else goes."""
    layers = [store.blob(kilobyte(name), age=9 * HOUR) for name in "abc"]
    child, other = store.image(*layers[:2], age=9 * HOUR), store.image(layers[2], age=9 * HOUR)
    index = store.index(child, age=9 * HOUR, tag="pinned")
    pin = Pin(HERE, Tag("pinned"))
    pins.add_pin(store.root, pin)
    pinned = [index, child, *layers[:2]]
    eviction = store.evict(NOTHING)
    assert store.held(*pinned, other, layers[2]) == [*[True] * 4, False, False]
    assert eviction.held == store.size()
    store.evict(NOTHING)
    assert all(store.held(*pinned))
    pins.remove_pin(store.root, pin)
    store.evict(NOTHING)
    assert not any(store.held(*pinned))


def test_pinned_tag_that_moved(store: Stocked) -> None:
    """Pins what it names now."""
    layer = store.blob(kilobyte("shared"), age=9 * HOUR)
    old = store.image(layer, store.blob(kilobyte("old"), age=9 * HOUR), age=9 * HOUR, tag="pinned")
    new = store.image(layer, age=9 * HOUR, tag="pinned")
    pins.add_pin(store.root, Pin(HERE, Tag("pinned")))
    store.evict(NOTHING)
    assert store.held(old, new, layer) == [False, True, True]
