"""The order of eviction, and evictions while other processes use the store."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Repository
from dockmirror.pullthrough.authorization import imported_document
from dockmirror.pullthrough.generations import tombstone_document
from dockmirror.store import files, layout
from dockmirror.store.eviction.store_budget import Shortfall
from dockmirror.store.eviction.store_scan import StoreScan, lru_order, may_evict_document

from ..answering import now
from .stocked import DIGEST, HERE, HOUR, LATEST, Stocked, read

DIGESTS = [Digest.of(bytes([number])) for number in range(12)]


def eviction_order(used: dict[int, float], references: dict[int, list[int]]) -> list[int]:
    """Return numbers of contents in the order of their eviction."""
    found = lru_order(
        {DIGESTS[n]: when for n, when in used.items()},
        {DIGESTS[n]: [DIGESTS[p] for p in parts] for n, parts in references.items()},
    )
    return [DIGESTS.index(digest) for digest in sorted(found, key=found.__getitem__)]


@pytest.mark.parametrize(
    ("used", "references", "order"),
    [
        ({0: 30.0, 1: 10.0, 2: 20.0}, {}, [1, 2, 0]),
        ({0: 30.0, 1: 10.0, 2: 20.0}, {0: [1]}, [2, 0, 1]),
        ({3: 10.0, 0: 10.0, 1: 10.0, 2: 10.0}, {2: [1], 1: [0], 0: [3]}, [2, 1, 0, 3]),
        ({0: 10.0, 1: 30.0, 2: 5.0, 3: 20.0}, {0: [2], 1: [2]}, [0, 3, 1, 2]),
        ({0: 10.0, 1: 30.0, 2: 20.0}, {0: [1]}, [0, 2, 1]),
        ({0: 10.0}, {0: [5], 7: [0]}, [0]),
    ],
    ids=["blobs", "old layer", "index", "shared layer", "used layer", "missing contents"],
)
def test_order(used: dict[int, float], references: dict[int, list[int]], order: list[int]) -> None:
    """The least recently used comes first, and a part after the last used of those that refer to it."""
    assert eviction_order(used, references) == order


@given(
    st.dictionaries(st.integers(0, 11), st.floats(0, 3).map(float), min_size=2),
    st.dictionaries(st.integers(0, 11), st.lists(st.integers(0, 11), max_size=4)),
)
def test_never_a_part_before_its_manifest(used: dict[int, float], references: dict[int, list[int]]) -> None:
    """No content is evicted before a manifest that refers to it; references have no cycles."""
    references = {n: [p for p in parts if p < n] for n, parts in references.items()}
    gone = eviction_order(used, references)
    assert sorted(gone) == sorted(used)
    for manifest, parts in references.items():
        if manifest in used:
            assert all(gone.index(manifest) < gone.index(part) for part in parts if part in used)
    free = [n for n in gone if not any(n in parts for parts in references.values())]
    assert all(used[one] <= used[other] for one, other in pairwise(free))


ROUNDS = 60
EVERYTHING = Shortfall(10**12, 10**12)
DATAS = [b"%d" % number * 1000 for number in range(4)]
PLACES = [Repository("docker.io/a"), Repository("docker.io/a/b"), Repository("docker.io/c")]


def use_store(root: Path, first: int) -> int:
    """Add, link, tag and read; return how often a content was there."""
    store, found = Stocked(root), 0
    for number in range(first, first + ROUNDS):
        data, place = DATAS[number % 4], PLACES[number % 3]
        digest = Digest.of(data)
        now(store.contents.add(place, digest, ContentKind.MANIFEST, data))
        now(store.tags.put(place, LATEST, digest))
        now(store.contents.link(PLACES[0], digest, ContentKind.BLOB))
        for kind in ContentKind:
            served = now(read(now(store.contents.open(place, digest, kind))))
            assert served in (None, data)
            found += served is not None
    return found


def finish_downloads(root: Path, first: int) -> int:
    """Complete downloads; return how many could be linked then."""
    store, linked = Stocked(root), 0
    for number in range(first, first + ROUNDS):
        data = DATAS[number % 4]
        arrived = root / f"arrived-{first}"
        arrived.write_bytes(data)
        files.publish(arrived, root / layout.data(Digest.of(data)))
        linked += now(store.contents.link(PLACES[number % 3], Digest.of(data), ContentKind.BLOB))
    return linked


def evict_everything(root: Path) -> int:
    """Evict everything; return the number of contents."""
    walk = StoreScan(root, Stocked(root).clock.seconds() + HOUR, lambda: None)
    walk.measure()
    return len(walk.evict(EVERYTHING).contents)


def test_concurrent_processes(tmp_path: Path) -> None:
    """Nothing wrong is served, no process fails, and a last eviction leaves nothing."""
    finished = Event()

    def evict_meanwhile() -> int:
        evicted = 0
        while not finished.is_set():
            evicted += evict_everything(tmp_path)
        return evicted

    with ThreadPoolExecutor(5) as pool:
        works: list[Callable[[Path, int], int]] = [use_store, use_store, finish_downloads, finish_downloads]
        evicting = pool.submit(evict_meanwhile)
        working = [pool.submit(work, tmp_path, first) for first, work in enumerate(works)]
        try:
            results = [each.result() for each in working]
        finally:
            finished.set()
        assert evicting.result() > 0
    assert all(results)
    evict_everything(tmp_path)
    assert {path.name for path in tmp_path.glob("docker/registry/v2/*/*")} == set()
    assert list((tmp_path / layout.TEMPORARY).iterdir()) == []


def test_blocks_are_evicted_first(store: Stocked) -> None:
    """Blocks count with what they take on the disk, and go before everything that was used less recently."""
    old = store.blob(b"o" * 50_000, age=9 * HOUR)
    paths = [store.root / layout.growing_blocks("docker.io", each) for each in DIGESTS[:2]]
    for path, age in zip(paths, (HOUR, 0.0), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(b"x" * 40_960)
            file.truncate(10**9)
        os.utime(path, (store.clock.seconds() - age,) * 2)
    scan = StoreScan(store.root, store.clock.seconds(), lambda: None)
    assert 50_000 + 2 * 40_960 <= scan.measure() < 200_000
    scan.evict(Shortfall(1))
    assert (paths[0].exists(), paths[1].exists(), store.held(old)) == (False, True, [True])
    scan = StoreScan(store.root, store.clock.seconds(), lambda: None)
    scan.measure()
    scan.evict(Shortfall(1))
    assert (paths[1].exists(), store.held(old)) == (True, [False])


DAY = 24 * HOUR
REST = Repository(HERE.rest)
LONG, OTHER_LONG = (Repository(f"{first}/{'long/' * 40}name") for first in ("team", "other"))
SHA512 = Digest.of(b"held", "sha512")
BY_AGE, TIED, STAYS, OF_OTHERS = (True, True, True), (False, False, True), (False,) * 3, (True, False, True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lists/docker/1234", BY_AGE),
        (f"signed/sha256/{DIGEST.hex}", BY_AGE),
        (f"public-lists/docker/{REST}", BY_AGE),
        ("written/docker.io", STAYS),
        ("doubts/docker.io/63", STAYS),
        (f"public/docker@docker.io+1234/{REST}", TIED),
        (f"public/docker/{REST}/other", OF_OTHERS),
        (f"changed/{HERE}", TIED),
        (f"changed/docker.io/{LONG}", TIED),
        (f"changed/docker.io/{OTHER_LONG}", OF_OTHERS),
        (imported_document("docker", REST), TIED),
        (imported_document("former@former.example", REST, DIGEST), TIED),
        (imported_document("docker", REST, SHA512), TIED),
        (imported_document("docker", REST, Digest.of(b"other")), OF_OTHERS),
        (imported_document("docker", LONG, DIGEST), TIED),
        (imported_document("docker", OTHER_LONG, DIGEST), OF_OTHERS),
        (tombstone_document(HERE, DIGEST, ContentKind.BLOB), TIED),
        (tombstone_document(Repository(f"docker.io/{LONG}"), DIGEST, ContentKind.BLOB), TIED),
    ],
)
def test_documents_that_may_be_evicted(name: str, expected: tuple[bool, ...]) -> None:
    """Unused for 31 days, while something is held; then, with nothing held, unused for 29 days and for 31."""
    file, places = layout.document(name).name, [HERE, Repository(f"docker.io/{LONG}")]
    held = {each for place in places for each in (place.name, place.rest)}
    assert expected == (
        may_evict_document(file, 31 * DAY, {DIGEST, SHA512}, held),
        may_evict_document(file, 29 * DAY, set(), set()),
        may_evict_document(file, 31 * DAY, set(), set()),
    )
