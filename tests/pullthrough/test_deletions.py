"""Deletions that mirrors of several machines share by a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest
from obstore.store import MemoryStore
from twisted.internet.task import Clock

from dockmirror.interfaces import ContentKind
from dockmirror.oci.request import Repository
from dockmirror.pullthrough.generations import (
    LOOK_UP_TTL,
    Generations,
    TombstoneFilter,
    Tombstones,
)
from dockmirror.store import layout, pins
from dockmirror.store.bucket.tiered_store import REFRESH_TTL
from dockmirror.store.eviction.store_budget import Budget
from dockmirror.store.pins import Pin

from ..answering import now
from ..store.bucket.machines import Machine
from ..store.stocked import DATA, DIGEST, EPOCH, HERE, LARGE, LARGE_DIGEST, LATEST, Stocked
from .mirrors import DAY


class Mirror:
    def __init__(self, machine: Machine, clock: Clock) -> None:
        self.machine = machine
        self.deletions = Tombstones(machine.documents, clock)
        self.contents = TombstoneFilter(machine.contents, self.deletions, clock)
        self.changes = Generations("docker.io", machine.documents, self.deletions, clock)

    def has(self, repository: Repository = HERE) -> bool:
        """Return whether all contents are linked to the repository."""
        opened = [
            now(self.contents.open(repository, digest, ContentKind.BLOB)) for digest in (DIGEST, LARGE_DIGEST)
        ]
        for each in opened:
            if each is not None:
                each.close()
        return None not in opened

    def add(self) -> None:
        for digest, data in ((DIGEST, DATA), (LARGE_DIGEST, LARGE)):
            now(self.contents.add(HERE, digest, ContentKind.BLOB, data))
        self.machine.upload()


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(EPOCH)
    return clock


@pytest.fixture
def mirrors(tmp_path: Path, clock: Clock) -> tuple[Mirror, Mirror]:
    """A mirror that deletes, and one that only reads."""
    store = MemoryStore()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = (Mirror(Machine(tmp_path / name, store, clock), clock) for name in ("one", "two"))
    one.deletions.expect("docker.io")
    return one, two


def _delete(mirror: Mirror) -> None:
    now(mirror.changes.advance(HERE))
    for digest in (DIGEST, LARGE_DIGEST):
        now(mirror.deletions.put(HERE, digest, ContentKind.BLOB))
        now(mirror.contents.unlink(HERE, digest, ContentKind.BLOB))
    mirror.machine.upload()


@pytest.mark.parametrize("near", [True, False])
def test_another_machine(mirrors: tuple[Mirror, Mirror], clock: Clock, near: bool) -> None:
    """It sees the deletion within ten minutes, also where it has the contents on its own disk."""
    one, two = mirrors
    (two if near else one).add()
    assert one.has()
    assert two.has()
    _delete(one)
    assert not one.has()
    clock.advance(max(REFRESH_TTL, LOOK_UP_TTL))
    two.has()  # has the documents looked up behind the answer
    clock.advance(REFRESH_TTL)
    assert not two.has()
    elsewhere = Repository("docker.io/library/other")
    for digest in (DIGEST, LARGE_DIGEST):
        assert now(two.contents.link(elsewhere, digest, ContentKind.BLOB))
    assert two.has(elsewhere)


def test_a_deleted_content_returns(mirrors: tuple[Mirror, Mirror], clock: Clock) -> None:
    """Other mirrors see that the tombstone was lifted."""
    one, two = mirrors
    one.add()
    _delete(one)
    for digest in (DIGEST, LARGE_DIGEST):
        deletion = now(one.deletions.find(HERE, digest, ContentKind.BLOB))
        now(one.deletions.lift(HERE, digest, ContentKind.BLOB, deletion))
        assert now(one.contents.link(HERE, digest, ContentKind.BLOB))
    one.machine.upload()
    clock.advance(2 * REFRESH_TTL)
    assert one.has()
    assert two.has()


def test_a_mirror_that_nobody_writes_through(mirrors: tuple[Mirror, Mirror], clock: Clock) -> None:
    """It asks the bucket for one document a registry, and for none of each content."""
    _, two = mirrors
    two.add()
    clock.advance(LOOK_UP_TTL)
    two.machine.bucket.requests.clear()
    for _ in range(5):
        assert two.has()
    assert two.machine.bucket.requests == {"get": 1}


def test_records_of_writes_stay_with_what_they_are_about(tmp_path: Path) -> None:
    """However full the cache is; a month after that is gone, they go, and the few of the registry stay."""
    store = Stocked(tmp_path)
    deletions = Tombstones(store.documents, store.clock)
    changes = Generations("docker.io", store.documents, deletions, store.clock)
    image, pin = store.image(store.blob(DATA), tag="latest"), Pin(HERE, LATEST)
    pins.add_pin(store.root, pin)
    now(changes.advance(HERE))
    now(changes.begin_write(HERE))
    now(changes.record_doubt(HERE))
    now(deletions.put(HERE, image, ContentKind.MANIFEST, certain=False))
    now(store.documents.write("lists/docker/1", b"[]"))

    def evict() -> set[str]:
        """Return the kinds of the documents that stay."""
        store.clock.advance(31 * DAY)
        store.evict(Budget(0))
        return {path.name.partition("%")[0] for path in (store.root / layout.DOCUMENTS).iterdir()}

    few = {"written", "writing", "doubts"}
    assert (evict(), store.held(image)) == ({*few, "changed", "gone"}, [True])
    assert now(changes.tombstone(HERE, image, ContentKind.MANIFEST)) is not None
    pins.remove_pin(store.root, pin)
    assert (evict(), store.held(image)) == ({*few, "changed", "gone"}, [False])
    assert evict() == few
