"""The turns of mirrors that share a bucket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import PurePosixPath
from typing import TypeVar

import pytest
from obstore.exceptions import GenericError
from obstore.store import MemoryStore
from twisted.internet.task import Clock

from dockmirror.app.sync_rules import LEASE, SyncTurn, SyncTurns
from dockmirror.store import layout
from dockmirror.store.bucket.bucket import MAX_BACKOFF, BucketUnavailable

from ..answering import now
from ..store.bucket.machines import bucket

T = TypeVar("T")


class LateFailures:
    """Threads whose calls reach the bucket; the answers of some are lost.

    :ivar lost: the numbers of the calls whose answers are lost.
    """

    def __init__(self, *lost: int) -> None:
        self.lost = lost
        self.calls = 0

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]:
        self.calls += 1
        is_lost = self.calls in self.lost

        async def run() -> T:
            result = call()
            if is_lost:
                raise GenericError("no answer")
            return result

        return run()


def names(store: MemoryStore) -> list[str]:
    """Return the names of the objects of turns."""
    paths = (each["path"] for each in store.list(str(layout.SYNC_TURNS)).collect())
    return sorted(PurePosixPath(each).name for each in paths)


def test_turns_are_for_one_rule_and_period_each() -> None:
    clock, store = Clock(), MemoryStore()
    one, other = (SyncTurns(bucket(clock, store), clock) for _ in range(2))
    assert now(one.claim("a", 1, "one")).owner == "one"
    assert now(other.claim("a", 1, "other")).owner == "one"
    assert now(other.claim("b", 1, "other")).owner == "other"
    now(one.complete(now(one.claim("a", 1, "one")), [], 1))
    assert now(other.claim("a", 2, "other")).owner == "other"
    assert now(one.claim("a", 2, "one")).owner == "other"
    assert now(one.claim("a", 2, "other")).owner == "other"
    assert names(store) == ["a-2-0", "b-1-0"]


def test_a_turn_outlasts_its_period() -> None:
    """The rule is run once at a time, and a run counts for the period in which it ends."""
    clock, store = Clock(), MemoryStore()
    turns = SyncTurns(bucket(clock, store), clock)
    turn = now(turns.claim("a", 1, "one"))
    assert now(turns.claim("a", 2, "other")) == turn
    assert names(store) == ["a-1-0"]
    turn = now(turns.complete(turn, ["x"], 2))
    assert now(turns.claim("a", 2, "other")) == turn
    assert now(turns.claim("a", 3, "other")).owner == "other"
    assert now(turns.claim("a", 2, "one")).owner == "other"
    assert names(store) == ["a-3-0"]


def test_a_mirror_goes_on_with_its_own_turn_in_the_next_period() -> None:
    """No longer than it had it, unless it renews it: its upstream may have failed."""
    clock, store = Clock(), MemoryStore()
    turns = SyncTurns(bucket(clock, store), clock)
    turn = now(turns.claim("a", 1, "one"))
    clock.advance(LEASE - 1)
    assert now(turns.claim("a", 2, "one")).until == turn.until
    assert names(store) == ["a-2-0"]
    assert now(turns.claim("a", 2, "other")).owner == "one"
    clock.advance(1)
    assert now(turns.claim("a", 3, "other")).owner == "other"
    assert names(store) == ["a-3-0"]


def test_the_turns_of_a_removed_rule_are_deleted() -> None:
    """Not those of others, and not one that another mirror has."""
    clock, store = Clock(), MemoryStore()
    turns = SyncTurns(bucket(clock, store), clock)
    for key in ("a", "b", "c"):
        now(turns.claim(key, 1, "one"))
    now(turns.delete("a", "one"))
    now(turns.delete("b", "other"))
    assert names(store) == ["b-1-0", "c-1-0"]
    clock.advance(LEASE)
    now(turns.delete("b", "other"))
    assert names(store) == ["c-1-0"]
    now(SyncTurns(bucket(clock, store, LateFailures(1)), clock).delete("c", "one"))
    now(SyncTurns(None, clock).delete("c", "one"))
    assert names(store) == ["c-1-0"]


def test_a_claim_whose_answer_was_lost_counts() -> None:
    """The mirror finds itself named as the owner when it claims the turn again."""
    clock, store = Clock(), MemoryStore()
    turns = SyncTurns(bucket(clock, store, LateFailures(2)), clock)
    with pytest.raises(BucketUnavailable):
        now(turns.claim("a", 1, "one"))
    clock.advance(MAX_BACKOFF)
    assert now(turns.claim("a", 1, "one")).owner == "one"
    assert now(SyncTurns(bucket(clock, store), clock).claim("a", 1, "other")).owner == "one"


@pytest.mark.parametrize("lost", [4, 5])
def test_a_turn_is_claimed_although_old_ones_cannot_be_deleted(lost: int) -> None:
    """They can be neither read again nor deleted."""
    clock, store = Clock(), MemoryStore()
    turns = SyncTurns(bucket(clock, store), clock)
    now(turns.complete(now(turns.claim("a", 1, "one")), [], 1))
    threads = LateFailures(lost)
    assert now(SyncTurns(bucket(clock, store, threads), clock).claim("a", 2, "one")).path.name == "a-2-0"
    assert threads.calls == lost


def test_a_turn_that_is_not_renewed_is_taken_over() -> None:
    """One of several mirrors does so; the owner, if it lives, leaves it to that one."""
    clock, store = Clock(), MemoryStore()
    turns = SyncTurns(bucket(clock, store), clock)
    turn = now(turns.claim("a", 1, "one"))
    clock.advance(LEASE - 1)
    turn = now(turns.extend(turn, clock.seconds() + LEASE))
    clock.advance(LEASE - 1)
    assert now(turns.claim("a", 1, "other")).owner == "one"
    clock.advance(1)
    assert now(turns.claim("a", 1, "other")).owner == "other"
    assert now(turns.claim("a", 1, "third")).owner == "other"
    assert now(turns.claim("a", 1, "one")).owner == "other"


def test_a_complete_turn_has_the_images_that_match() -> None:
    clock, store = Clock(), MemoryStore()
    turns = SyncTurns(bucket(clock, store), clock)
    now(turns.complete(now(turns.claim("a", 1, "one")), ["docker.io/library/nginx:1"], 1))
    clock.advance(2 * LEASE)
    assert now(turns.claim("a", 1, "other")).images == ("docker.io/library/nginx:1",)


def test_a_malformed_turn_is_taken_over() -> None:
    clock, store = Clock(), MemoryStore()
    for data in (b"", b"[]", b'{"owner": "one"}', b"\xff"):
        store.put(str(layout.SYNC_TURNS / "a-1-0"), data)
        assert now(SyncTurns(bucket(clock, store), clock).claim("a", 1, "other")).owner == "other"
        store.delete(str(layout.SYNC_TURNS / "a-1-1"))


def test_without_a_bucket_each_turn_is_the_mirrors_own() -> None:
    clock = Clock()
    turn = now(SyncTurns(None, clock).claim("a", 1, "one"))
    assert now(SyncTurns(None, clock).complete(turn, ["x"], 1)).owner == "one"


def test_turns_are_written_as_they_are_read() -> None:
    path = layout.SYNC_TURNS / "a-1-0"
    for turn in (SyncTurn(path, "one", 3.5), SyncTurn(path, "one", 3.5, ("x", "y"), 2)):
        assert SyncTurn.parse(path, bytes(turn)) == turn
