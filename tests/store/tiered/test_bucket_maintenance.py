"""The bucket is told and cleaned by and by, and a failure ends nothing."""

from __future__ import annotations

import time

from obstore.store import MemoryStore
from twisted.internet.task import Clock

from dockmirror.oci.digest import Digest
from dockmirror.store import layout
from dockmirror.store.bucket.bucket_expiry import (
    DAY,
    LOOK,
    TELL,
    BucketExpiry,
    BucketMaintenance,
    LastUsedJournal,
)

from ...answering import now
from ..bucket.buckets import bucket


def test_by_and_by() -> None:
    """Uses are told each minute, and the cleaning of a day is looked for each hour, until it is stopped."""
    clock = Clock()
    clock.advance(time.time())
    kept = bucket(clock, MemoryStore())
    uses = LastUsedJournal(kept, clock)
    cleaning = BucketMaintenance(uses, BucketExpiry(kept, uses, clock, DAY), clock)
    cleaning.startService()
    assert kept.requests == {}
    uses.note(Digest.of(b"1"))
    clock.advance(TELL - 1)
    kept.health.failed("down")
    clock.advance(1)
    assert kept.requests == {}
    clock.advance(TELL)
    assert len(now(kept.list(layout.USES))) == 1
    for _ in range(60):
        clock.advance(LOOK / 60)
    assert len(now(kept.list(layout.CLEANINGS))) == 1
    cleaning.stopService()
    assert not clock.getDelayedCalls()
