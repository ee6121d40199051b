"""Several processes use one directory while everything is evicted again and again."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.reference import Repository
from dockmirror.store import files, layout
from dockmirror.store.eviction.budget import Shortfall
from dockmirror.store.eviction.store_scan import StoreScan

from ..answering import now
from .stocked import HOUR, LATEST, Stocked, read

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
