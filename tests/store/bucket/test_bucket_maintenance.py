"""The bucket's maintenance runs periodically, and a failure does not end it."""

from __future__ import annotations

import time

from obstore.store import MemoryStore
from twisted.internet.task import Clock

from dockmirror.oci.digest import Digest
from dockmirror.store import layout
from dockmirror.store.bucket.bucket_expiry import (
    DAY,
    EXPIRY_CHECK_INTERVAL,
    FLUSH_INTERVAL,
    BucketExpiry,
    BucketMaintenance,
    LastUsedJournal,
)

from ...answering import now
from .buckets import bucket


def test_periodic_maintenance() -> None:
    """Uses are written each minute and expiry is checked each hour, until the service stops."""
    clock = Clock()
    clock.advance(time.time())
    kept = bucket(clock, MemoryStore())
    uses = LastUsedJournal(kept, clock)
    cleaning = BucketMaintenance(uses, BucketExpiry(kept, uses, clock, DAY), clock)
    cleaning.startService()
    assert kept.requests == {}
    uses.record(Digest.of(b"1"))
    clock.advance(FLUSH_INTERVAL - 1)
    kept.health.record_failure("down")
    clock.advance(1)
    assert kept.requests == {}
    clock.advance(FLUSH_INTERVAL)
    assert len(now(kept.list(layout.LAST_USED))) == 1
    for _ in range(60):
        clock.advance(EXPIRY_CHECK_INTERVAL / 60)
    assert len(now(kept.list(layout.EXPIRY_RUNS))) == 1
    cleaning.stopService()
    assert not clock.getDelayedCalls()
