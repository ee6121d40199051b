"""Buckets in memory: obstore's own, which keeps the contract of the real ones."""

from __future__ import annotations

from obstore.store import MemoryStore, ObjectStore
from twisted.internet.interfaces import IReactorTime

from dockmirror.store.bucket.bucket import Bucket
from dockmirror.store.threads import RunInThread

from ..threads import inline


def bucket(clock: IReactorTime, store: ObjectStore | None = None, in_thread: RunInThread = inline) -> Bucket:
    """An empty one, or one on what is given."""
    held = MemoryStore() if store is None else store
    return Bucket("the bucket", lambda: held, clock, in_thread)
