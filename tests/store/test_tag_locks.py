"""Locks that let one process at a time refresh a tag."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred

from dockmirror.store.local_store import LOCK_FILES, TagLocks

from ..answering import now
from .threads import HeldThreads, inline


def test_one_process_has_the_turn(tmp_path: Path) -> None:
    """Until it ends; other tags are not concerned, and there are a few files for all."""
    one, other = (TagLocks(tmp_path, inline) for _ in range(2))
    release = now(one.claim("a"))
    assert release is not None
    assert now(other.claim("a")) is None
    turn = now(other.claim("b"))
    assert turn is not None
    release()
    again = now(other.claim("a"))
    assert again is not None
    for each in (turn, again):
        each()
    for number in range(3 * LOCK_FILES):
        claimed = now(one.claim(f"tag {number}"))
        assert claimed is not None
        claimed()
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) <= LOCK_FILES


def test_a_claim_that_is_cancelled_leaves_no_lock(tmp_path: Path) -> None:
    threads = HeldThreads()
    claiming = Deferred.fromCoroutine(TagLocks(tmp_path, threads).claim("a"))
    claiming.addErrback(lambda failure: failure.trap(CancelledError))
    claiming.cancel()
    threads.run()
    release = now(TagLocks(tmp_path, inline).claim("a"))
    assert release is not None
    release()


def test_without_a_lock_everybody_has_the_turn(tmp_path: Path) -> None:
    """A full or broken disk makes no tag stale."""
    (tmp_path / "dockmirror").write_text("not a directory")
    locks = TagLocks(tmp_path, inline)
    for _ in range(2):
        release = now(locks.claim("a"))
        assert release is not None
        release()
