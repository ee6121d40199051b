"""Eviction keeps a store within its budget."""

from __future__ import annotations

import os

import pytest

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Tag
from dockmirror.store import layout, pins, write_behind
from dockmirror.store.eviction.eviction import CHECK_INTERVAL, Sweep
from dockmirror.store.eviction.retention import Retention
from dockmirror.store.eviction.store_budget import Budget, Shortfall, try_lock_usage_counter
from dockmirror.store.eviction.store_scan import StoreScan
from dockmirror.store.pins import Pin
from dockmirror.store.write_behind import PendingContent

from ..answering import now, watch
from ..stacks import logged
from ..test_docs import text
from .stocked import ELSEWHERE, EPOCH, HERE, HOUR, LATEST, Stocked, read_tag
from .threads import HeldThreads

DAY = 24 * HOUR
PLENTY = Budget(10**15)
NOTHING = Budget(0)


def kilobyte(name: str) -> bytes:
    """Return a thousand bytes that are unique to this name."""
    return name.encode().ljust(1000)


def test_least_recently_used_first(store: Stocked) -> None:
    """The least recently used contents are evicted until a tenth of an exceeded budget is spare."""
    ages = {name: HOUR + abs(5 - number) for number, name in enumerate("abcdefghijk")}
    digests = {name: store.blob(kilobyte(name), age) for name, age in ages.items()}
    eviction = store.evict(Budget(11_000))
    assert (eviction.size, eviction.scans, eviction.evicted) == (11_000, 1, 0)
    eviction = store.evict(Budget(10_000))
    gone = [name for name, digest in digests.items() if store.held(digest) == [False]]
    assert set(gone) == {"a", "k"}
    assert (eviction.size, eviction.evicted, eviction.evicted_bytes) == (9000, 2, 2000)


def test_pending_uploads_last(store: Stocked) -> None:
    """A content that is not uploaded yet is evicted after everything else."""
    first, *others = (store.blob(kilobyte(name), age) for name, age in (("a", DAY), ("b", HOUR), ("c", HOUR)))
    write_behind.enqueue(store.root, PendingContent(HERE, first, ContentKind.BLOB), EPOCH)
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
    store.clock.pump([CHECK_INTERVAL] * 10)
    assert (eviction.scans + other.scans, eviction.size, other.size) == (1, 2000, 2000)
    newest = store.blob(kilobyte("newest"), age=HOUR)
    other.add(1000)
    store.clock.pump([CHECK_INTERVAL] * 2)
    assert (eviction.scans + other.scans, eviction.size, other.size) == (2, 2000, 2000)
    assert store.held(old, new, newest) == [False, True, True]


def test_checks_of_an_idle_mirror_write_nothing(store: Stocked) -> None:
    """A disk that nobody uses may sleep."""
    store.blob(kilobyte("a"))
    eviction = store.eviction(Budget(2500))
    store.clock.advance(CHECK_INTERVAL)
    counter = store.root / layout.USAGE_COUNTER
    os.utime(counter, (0, 0))
    store.clock.pump([CHECK_INTERVAL] * 10)
    assert counter.stat().st_mtime == 0
    eviction.add(1)
    store.clock.advance(CHECK_INTERVAL)
    assert counter.stat().st_mtime > 0


def test_scan_corrects_the_count(store: Stocked) -> None:
    """A wrong count evicts nothing, and a scan corrects it each day."""
    digest = store.blob(kilobyte("a"))
    eviction = store.eviction(Budget(2500))
    store.clock.advance(CHECK_INTERVAL)
    eviction.add(1_000_000)
    store.clock.pump([CHECK_INTERVAL, 30])
    assert (eviction.size, store.held(digest)) == (1000, [True])
    os.truncate(store.root / layout.data(digest), 700)
    store.clock.advance(DAY)
    assert eviction.size == 700


def test_scans_pause(store: Stocked) -> None:
    """If nothing can be evicted yet, some time passes before the next scan."""
    digest = store.blob(kilobyte("a"), age=0)
    eviction = store.eviction(NOTHING)
    store.clock.pump([CHECK_INTERVAL] * 4)
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
    """A layer stays as long as a manifest that refers to it, and that as long as its index."""
    layers = [store.blob(kilobyte(name), age=9 * HOUR) for name in "abc"]
    child, old = store.image(*layers[:2], age=9 * HOUR), store.image(*layers[1:], age=5 * HOUR, tag="old")
    index = store.index(child, age=HOUR, tag="latest")
    alone = store.blob(kilobyte("alone"), age=2 * HOUR)
    everything = {index: "index", child: "child", old: "old", alone: "alone"} | dict(
        zip(layers, "abc", strict=True)
    )
    order: list[str] = []
    while any(store.held(*everything)):
        store.evict(Budget(max(0, store.size() - 1)))
        gone = [name for digest, name in everything.items() if store.held(digest) == [False]]
        order += [name for name in gone if name not in order]
    assert order.index("old") < order.index("c") < order.index("alone") < order.index("index")
    assert order.index("index") < order.index("child") < min(order.index("a"), order.index("b"))


def test_links_are_evicted(store: Stocked) -> None:
    """Links, tags and empty directories are evicted with the bytes."""
    kept = store.image(store.blob(kilobyte("kept"), age=0), age=0, tag="kept")
    now(store.tags.put(HERE, LATEST, kept))
    before = store.tree()
    layer = store.blob(kilobyte("a"))
    gone = store.image(layer, tag="gone")
    now(store.contents.link(ELSEWHERE, layer, ContentKind.BLOB))
    now(store.contents.link(ELSEWHERE, gone, ContentKind.MANIFEST))
    for place, digest in ((ELSEWHERE, gone), (HERE, gone), (HERE, kept)):
        now(store.tags.put(place, LATEST, digest))
    for digest in (layer, gone):
        store.age(digest, HOUR)
    store.evict(NOTHING)
    assert store.held(layer, gone, kept) == [False, False, True]
    assert store.tree() == before


def test_contents_that_come_during_a_scan_stay(store: Stocked) -> None:
    """They are newer than the time at which the scan began."""
    old, new = store.blob(kilobyte("old"), age=HOUR), store.blob(kilobyte("new"), age=-30)
    store.evict(NOTHING)
    assert store.held(old, new) == [False, True]


def test_last_minute(store: Stocked) -> None:
    """Contents used in the last minute stay with all they refer to; uses in the future go last."""
    layer = store.blob(kilobyte("layer"), age=9 * HOUR)
    manifest = store.image(layer, age=119 - CHECK_INTERVAL)
    late, future = store.blob(kilobyte("late"), age=120), store.blob(kilobyte("future"), age=-9 * HOUR)
    store.evict(Budget(store.size() - 1))
    assert store.held(manifest, layer, late, future) == [True, True, False, True]
    store.age(manifest, 119 - CHECK_INTERVAL)
    store.evict(NOTHING)
    assert store.held(manifest, layer, future) == [True, True, False]


@pytest.mark.parametrize("budget", [Budget(10**15, free_bytes=10**15), Budget(10**15, free_inodes=10**12)])
def test_disk_short(store: Stocked, budget: Budget) -> None:
    """The cache shrinks if others fill the disk or use up its inodes; that is logged once, and its end."""
    if budget.free_inodes and not os.statvfs(store.root).f_files:
        pytest.skip("the file system has no number of inodes")
    old, used = store.blob(kilobyte("old")), store.blob(kilobyte("used"), age=0)
    eviction = store.eviction(budget)
    with logged() as texts:
        store.clock.advance(CHECK_INTERVAL)
        assert store.held(old, used) == [False, True]
        store.clock.pump([60] * 5)
    (text,) = [text for text in texts if "everything evictable is evicted" in text]
    assert '"staying!:": "used in the last two minutes"' in text
    assert (' PB"' in text) == bool(budget.free_bytes)
    assert eviction.scans > 1
    eviction.set_budget(PLENTY)
    with logged() as texts:
        store.clock.pump([DAY, 60])
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
    """Partial downloads are counted and stay; abandoned ones are deleted and not counted any more."""
    digest = store.blob(kilobyte("a"))
    paths = [store.root / layout.growing("docker.io", Digest.of(name)) for name in (b"new", b"old")]
    for path, age in zip(paths, (2 * HOUR, 2 * DAY), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kilobyte("part"))
        os.utime(path, (store.clock.seconds() - age,) * 2)
    eviction = store.evict(Budget(1500))
    assert [path.exists() for path in paths] == [True, False]
    assert (eviction.size, eviction.abandoned, store.held(digest)) == (1000, 1, [False])
    eviction = store.eviction(PLENTY)
    store.clock.advance(CHECK_INTERVAL)
    assert eviction.size == 1000
    store.clock.advance(DAY - 2 * HOUR)
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


def test_needed_images_are_not_evicted(store: Stocked) -> None:
    """An image of a lock file stays, with its layers, however full the cache is; others are evicted."""
    layers = [store.blob(kilobyte(name), age=9 * HOUR) for name in "ab"]
    needed, other = store.image(layers[0], age=9 * HOUR), store.image(layers[1], age=8 * HOUR)
    sweep = Sweep(store.root, Budget(1), Retention(needed=lambda: [needed]))
    assert sweep.run(0, store.clock.seconds()) is not None
    assert store.held(needed, layers[0], other, layers[1]) == [True, True, False, False]


def test_needs_that_cannot_be_read_are_logged(store: Stocked) -> None:
    """The cache makes room all the same."""

    def fail() -> list[Digest]:
        raise OSError("dockmirror.lock: line 3 is malformed")

    image = store.image(store.blob(kilobyte("a"), age=9 * HOUR), age=9 * HOUR)
    with logged() as lines:
        assert Sweep(store.root, Budget(1), Retention(needed=fail)).run(0, store.clock.seconds()) is not None
    assert store.held(image) == [False]
    assert any("line 3 is malformed" in line for line in lines)


def test_used_during_the_scan(store: Stocked) -> None:
    """A manifest that is used during the scan stays with its layers; others are evicted."""
    layers = [store.blob(kilobyte(name), age=9 * HOUR) for name in "ab"]
    child, other = store.image(layers[0], age=9 * HOUR), store.image(layers[1], age=8 * HOUR)
    index = store.index(child, age=9 * HOUR, tag="latest")
    scan = StoreScan(store.root, store.clock.seconds(), lambda: None)
    shortfall = Shortfall(scan.measure())
    assert now(store.contents.open(HERE, index, ContentKind.MANIFEST)) is not None
    assert set(scan.evict(shortfall).contents) == {other, layers[1]}
    assert store.held(index, child, layers[0]) == [True] * 3
    assert now(store.tags.get(HERE, LATEST)) is not None


def test_added_during_the_scan(store: Stocked) -> None:
    """A content that is added during the scan keeps its links."""
    scan = StoreScan(store.root, store.clock.seconds(), lambda: None)
    scan.measure()
    digest = store.image(store.blob(kilobyte("a")), tag="latest")
    scan.evict(Shortfall())
    assert now(store.contents.open(HERE, digest, ContentKind.MANIFEST)) is not None
    assert now(store.tags.get(HERE, LATEST)) is not None


def test_tag_moved_during_the_scan(store: Stocked) -> None:
    """A tag that moves to another manifest during the scan stays."""
    old = store.image(store.blob(kilobyte("old")), tag="latest")
    new = store.image(store.blob(kilobyte("new"), age=0), age=0)
    is_measured = False

    def check() -> None:
        if is_measured:
            now(store.tags.put(HERE, LATEST, new))

    scan = StoreScan(store.root, store.clock.seconds(), check)
    scan.measure()
    is_measured = True
    scan.evict(Shortfall(1))
    assert (read_tag(store.tags), store.held(old)) == (new, [False])


def test_one_process_at_a_time(store: Stocked) -> None:
    """Bytes that were added while another process sweeps are counted later; its count is taken over."""
    eviction = store.eviction(PLENTY)
    store.clock.advance(CHECK_INTERVAL)
    eviction.add(500)
    with try_lock_usage_counter(store.root) as counter:
        assert counter is not None
        store.clock.advance(CHECK_INTERVAL)
        eviction.add(70)
        assert eviction.size == 0
        counter.add(300)
        store.clock.advance(CHECK_INTERVAL)
        assert eviction.size == 300
    store.clock.advance(CHECK_INTERVAL)
    assert eviction.size == 870


def test_failing_check(store: Stocked) -> None:
    """A failing check is logged once, the next one runs nevertheless, and the log says when one works."""
    (store.root / layout.USAGE_COUNTER).mkdir(parents=True)
    eviction = store.eviction(PLENTY)
    with logged() as texts:
        eviction.add(500)
        store.clock.pump([CHECK_INTERVAL] * 3)
        assert len(texts) == 1
        assert "kept within its budget: [Errno 21] Is a directory" in texts[0]
        assert "Is a directory" in str(eviction.failure)
        (store.root / layout.USAGE_COUNTER).rmdir()
        store.blob(kilobyte("a"))
        store.clock.advance(CHECK_INTERVAL)
    assert (eviction.size, eviction.failure, len(texts)) == (1000, None, 2)
    assert "can be kept within its budget again" in texts[1]


def test_the_rest_is_evicted_while_a_repository_cannot_be_read(store: Stocked) -> None:
    """Contents that only that one may have stay, with all that they refer to, until it can be read."""
    shared, only_there, only_here = (store.blob(kilobyte(name), age=9 * HOUR) for name in "abc")
    here = store.image(shared, only_here, age=9 * HOUR, tag="latest")
    now(store.contents.link(ELSEWHERE, shared, ContentKind.BLOB))
    now(store.contents.unlink(HERE, only_there, ContentKind.BLOB))
    now(store.contents.link(ELSEWHERE, only_there, ContentKind.BLOB))
    there = store.image(shared, only_there, age=9 * HOUR, repository=ELSEWHERE)
    directory = store.root / layout.REPOSITORIES / "ghcr.io"
    aside = directory.rename(store.root / "aside")
    directory.symlink_to("ghcr.io")  # root, too, cannot list a link to itself
    eviction = store.eviction(NOTHING)
    with logged() as texts:
        store.clock.pump([CHECK_INTERVAL] * 10)
    assert store.held(here, only_here, there, shared, only_there) == [False, False, True, True, True]
    assert str(directory) in str(eviction.failure)
    assert len([text for text in texts if "cannot be kept within its budget" in text]) == 1
    with pytest.raises(OSError, match="Too many levels"):
        Sweep(store.root, NOTHING).collect(store.clock.seconds())
    directory.unlink()
    aside.rename(directory)
    store.clock.pump([CHECK_INTERVAL] * 4)
    assert (store.held(there, shared, only_there), eviction.failure) == ([False] * 3, None)


def test_stopped(store: Stocked) -> None:
    """The first check comes after an interval; stopping ends its scan, which evicts nothing any more."""
    digest = store.blob(kilobyte("a"))
    threads = HeldThreads()
    eviction = store.eviction(NOTHING, threads)
    store.clock.advance(CHECK_INTERVAL - 1)
    assert threads.held == 0
    store.clock.pump([1, *[CHECK_INTERVAL] * 10])
    assert threads.held == 1
    outcome = watch(eviction.stop())
    assert outcome == []
    threads.run()
    assert outcome == [None]
    store.clock.pump([CHECK_INTERVAL] * 3)
    assert (threads.held, eviction.scans, store.held(digest)) == (0, 0, [True])
    assert not store.clock.getDelayedCalls()


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


def test_held_for_a_tag(store: Stocked) -> None:
    """The manifest that a tag is served as stays, although the tag names another one."""
    layers = [store.blob(kilobyte(name), age=9 * HOUR) for name in "ab"]
    admitted, newer = (store.image(layer, age=9 * HOUR, tag="latest") for layer in layers)
    pins.hold_tag(store.root, HERE, Tag("latest"), admitted, store.clock.seconds())
    store.evict(NOTHING)
    assert store.held(admitted, layers[0], newer, layers[1]) == [True, True, False, False]


def test_pinned(store: Stocked) -> None:
    """All that the manifest of a pinned tag needs now stays until it is unpinned; the rest is evicted."""
    layers = [store.blob(kilobyte(name), age=9 * HOUR) for name in "abc"]
    store.index(store.image(*layers, age=9 * HOUR), age=9 * HOUR, tag="pinned")
    child, other = store.image(*layers[:2], age=9 * HOUR), store.image(layers[2], age=9 * HOUR)
    index = store.index(child, age=9 * HOUR, tag="pinned")
    pin = Pin(HERE, Tag("pinned"))
    pins.add_pin(store.root, pin)
    pinned = [index, child, *layers[:2]]
    for _ in range(2):
        eviction = store.evict(NOTHING)
        assert store.held(*pinned, other, layers[2]) == [*[True] * 4, False, False]
        assert eviction.size == store.size()
    pins.remove_pin(store.root, pin)
    store.evict(NOTHING)
    assert not any(store.held(*pinned))


def test_artifacts_of_pinned_images(store: Stocked) -> None:
    """Signatures and other artifacts stay with their image, by subject or by tag, and in turn their own.

    Elsewhere anybody may name a pinned image as the subject of what would fill the cache.
    """
    old = 9 * HOUR
    image = store.image(store.blob(kilobyte("a"), age=old), age=old, tag="1")
    child = store.image(store.blob(kilobyte("b"), age=old), age=old)
    index = store.index(child, image, age=old, tag="2")
    signature = store.image(
        store.blob(kilobyte("s"), age=old), age=old, tag=f"{child.algorithm}-{child.hex}.sig"
    )
    sbom = store.artifact(index, "sbom", age=old)
    of_sbom = store.artifact(sbom, "of sbom", age=old)
    other = store.artifact(index, "other", age=old, repository=ELSEWHERE)
    pins.add_pin(store.root, Pin(HERE, Tag("2")))
    store.evict(NOTHING)
    assert store.held(index, child, image, signature, sbom, of_sbom) == [True] * 6
    assert store.held(other) == [False]
    pins.remove_pin(store.root, Pin(HERE, Tag("2")))
    store.evict(NOTHING)
    assert not any(store.held(index, signature, sbom, of_sbom))
