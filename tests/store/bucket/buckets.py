"""Buckets in memory: obstore's own, which keep the contract of real ones."""

from __future__ import annotations

from obstore.store import MemoryStore, ObjectStore
from twisted.internet.interfaces import IReactorTime

from dockmirror.store.bucket.bucket import Bucket
from dockmirror.store.threads import RunInThread

from ..threads import inline


def bucket(clock: IReactorTime, store: ObjectStore | None = None, in_thread: RunInThread = inline) -> Bucket:
    """Return a bucket, empty or with the given objects."""
    held = MemoryStore() if store is None else store
    return Bucket("the bucket", lambda: held, clock, in_thread)
