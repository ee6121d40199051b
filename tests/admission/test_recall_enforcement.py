"""Recalls are carried out, and reach every mirror of a bucket."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from obstore.store import MemoryStore
from twisted.internet.task import Clock

from dockmirror.admission.recall_enforcement import (
    FULL_PERIOD,
    PERIOD,
    RecallEnforcement,
    RecallExchange,
    is_stored,
)
from dockmirror.admission.recalls import Recall, RecallReader, read_statements, write_statement
from dockmirror.oci.digest import Digest
from dockmirror.store import files, layout

from ..answering import now
from ..store.bucket.machines import BucketThreads, bucket
from ..store.stocked import EPOCH, LATEST, Stocked, read_tag
from ..store.threads import CountedThread, inline

BAD = Recall(Digest.of(b"bad"), "CVE-1", EPOCH, EPOCH)
WORSE = Recall(Digest.of(b"worse"), "CVE-2", EPOCH, EPOCH)


class Mirror:
    """The recalls of one mirror."""

    def __init__(self, root: Path, store: MemoryStore, clock: Clock) -> None:
        self.root = root
        self.threads = BucketThreads()
        self.exchange = RecallExchange(root, bucket(clock, store, self.threads), clock, inline)

    def recall(self, statement: Recall) -> None:
        write_statement(self.root, statement)

    def run(self) -> list[Recall]:
        now(self.exchange.run())
        return sorted(read_statements(self.root).values(), key=lambda each: each.reason)


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(EPOCH)
    return clock


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def mirrors(tmp_path: Path, store: MemoryStore, clock: Clock) -> tuple[Mirror, Mirror]:
    return Mirror(tmp_path / "one", store, clock), Mirror(tmp_path / "two", store, clock)


def test_exchange(mirrors: tuple[Mirror, Mirror], store: MemoryStore) -> None:
    """Recalls of both, and the lifting of one, are known to both after one look each."""
    one, two = mirrors
    store.put(str(layout.data(BAD.digest)), b"bad")
    assert one.run() == two.run() == []
    one.recall(BAD)
    assert one.run() == two.run() == [BAD]
    assert not [each for chunk in store.list(str(layout.BLOBS)) for each in chunk]
    two.recall(WORSE)
    assert two.run() == one.run() == [BAD, WORSE]
    lifted = BAD.lift(EPOCH + 60)
    two.recall(lifted)
    assert two.run() == one.run() == [lifted, WORSE]
    assert two.run() == [lifted, WORSE]


def test_conflict(mirrors: tuple[Mirror, Mirror]) -> None:
    """The later of two statements about one digest counts, whichever arrives first."""
    one, two = mirrors
    lifted = BAD.lift(EPOCH + 60)
    one.recall(lifted)
    two.recall(BAD)
    assert one.run() == two.run() == [lifted]


def test_one_request_while_nothing_changes(mirrors: tuple[Mirror, Mirror], clock: Clock) -> None:
    """Only the generation is read, until the listing is due."""
    one, _ = mirrors
    one.recall(BAD)
    one.run()
    one.run()
    before = one.threads.calls
    one.run()
    assert one.threads.calls == before + 1
    clock.advance(FULL_PERIOD)
    one.run()
    assert one.threads.calls > before + 2


def test_bucket_down(mirrors: tuple[Mirror, Mirror], clock: Clock) -> None:
    """While the bucket fails, a mirror goes on with its own recalls, and exchanges them afterwards."""
    one, two = mirrors
    one.threads.down = True
    one.recall(BAD)
    assert one.run() == [BAD]
    one.threads.down = False
    clock.advance(60)
    assert one.run() == two.run() == [BAD]


def test_a_mirror_without_recalls_needs_no_thread_for_them(tmp_path: Path, clock: Clock) -> None:
    thread = CountedThread()
    enforcement = RecallEnforcement(tmp_path, RecallReader(tmp_path, clock), clock, thread)
    enforcement.startService()
    write_statement(tmp_path, BAD.lift(EPOCH + 60))
    clock.pump([PERIOD] * 10)
    assert thread.calls == 0
    write_statement(tmp_path, WORSE)
    clock.advance(PERIOD)
    assert thread.calls > 0
    enforcement.stopService()


def test_enforcement(tmp_path: Path) -> None:
    """One process removes what is recalled, again when it has come back, and another one takes over."""
    stocked = Stocked(tmp_path)
    first, second = (
        RecallEnforcement(stocked.root, RecallReader(stocked.root, stocked.clock), stocked.clock, inline)
        for _ in range(2)
    )
    bad = stocked.image(stocked.blob(b"{}"), tag="latest")
    first.startService()
    second.startService()
    write_statement(stocked.root, Recall(bad, "CVE-1", EPOCH, EPOCH))
    stocked.clock.advance(PERIOD)
    assert not is_stored(stocked.root, bad)

    assert stocked.image(stocked.blob(b"{}"), tag="latest") == bad
    first.stopService()
    stocked.clock.advance(PERIOD)
    assert not is_stored(stocked.root, bad)
    assert read_tag(stocked.tags, LATEST) is None
    second.stopService()
    lock = files.lock(stocked.root / layout.RECALLS_LOCK)
    assert lock is not None
    os.close(lock)


def test_nothing_is_deleted_for_a_statement_that_cannot_be_read(
    tmp_path: Path, store: MemoryStore, clock: Clock
) -> None:
    """It may have been that the recall was lifted; the bucket's statement takes its place."""
    stocked = Stocked(tmp_path / "one")
    image = stocked.image(stocked.blob(b"{}"), tag="latest")
    one, two = Mirror(stocked.root, store, clock), Mirror(tmp_path / "two", store, clock)
    write_statement(stocked.root, Recall(image, "CVE-1", EPOCH, EPOCH))
    (stocked.root / layout.recall(image)).write_bytes(b"{")
    reader = RecallReader(stocked.root, stocked.clock)
    enforcement = RecallEnforcement(stocked.root, reader, stocked.clock, inline)
    enforcement.startService()
    stocked.clock.advance(PERIOD)
    enforcement.stopService()
    assert reader.current().find(image) is not None
    assert is_stored(stocked.root, image)
    (unreadable,) = one.run()
    assert unreadable.is_unreadable
    assert two.run() == []
    two.recall(lifted := Recall(image, "CVE-1", EPOCH, EPOCH).lift(EPOCH + 1))
    assert two.run() == one.run() == [lifted]
