"""The turns in which processes and mirrors poll tags."""

from __future__ import annotations

from pathlib import Path

from obstore.store import MemoryStore
from twisted.internet.task import Clock

from dockmirror.app.admission import PollTurns

from ..answering import now
from ..store.bucket.machines import BucketThreads, bucket
from ..store.threads import inline


def test_one_process_polls(tmp_path: Path) -> None:
    one, other = (PollTurns(tmp_path, inline, None, Clock()) for _ in range(2))
    release = now(one.claim())
    assert release is not None
    assert now(other.claim()) is None
    release()
    assert now(other.claim()) is not None


def test_one_mirror_of_a_bucket_polls(tmp_path: Path) -> None:
    """Each hour another one may; while the bucket is down, none does."""
    clock, store, threads = Clock(), MemoryStore(), BucketThreads()
    one, other = (
        PollTurns(tmp_path / name, inline, bucket(clock, store, threads), clock) for name in ("one", "other")
    )
    for first, second in ((one, other), (other, one)):
        release = now(first.claim())
        assert release is not None
        release()
        assert now(second.claim()) is None
        assert now(first.claim()) is None
        clock.advance(3600)
    threads.down = True
    assert now(one.claim()) is None
