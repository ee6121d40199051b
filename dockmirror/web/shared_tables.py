"""Memory that processes share which serve as one."""

from __future__ import annotations

import mmap
import os
from itertools import accumulate

from ..status import cache_series, pull_counts
from ..system import shared_table
from . import failed_logins, rate_limiter, recent_requests

_PARTS = (
    rate_limiter.COUNTERS_SIZE,
    recent_requests.SIZE,
    cache_series.SIZE,
    pull_counts.SIZE,
    failed_logins.SIZE,
    shared_table.DIGESTS_SIZE,
)
SIZE = sum(_PARTS)


class SharedTables:
    """Some of it for each who keeps something in it.

    :ivar ledger: see ``RateCounters``.
    :ivar recent: see ``RecentRequests``.
    :ivar series: see ``CacheSeries``.
    :ivar popular: see ``PullCounts``.
    :ivar guesses: see ``FailedLogins``.
    :ivar verified: see ``Htpasswd``.
    """

    def __init__(self, mapped: mmap.mmap) -> None:
        whole = memoryview(mapped)
        ends = accumulate(_PARTS)
        self.ledger, self.recent, self.series, self.popular, self.guesses, self.verified = (
            whole[end - size : end] for size, end in zip(_PARTS, ends, strict=True)
        )

    @classmethod
    def create(cls) -> SharedTables:
        """Of a process that shares it with nobody."""
        return cls(mmap.mmap(-1, SIZE))

    @classmethod
    def attach(cls, descriptor: int) -> SharedTables:
        """That which another process has made."""
        return cls(mmap.mmap(descriptor, SIZE))


def create_shared_memory() -> int:
    """The descriptor of memory that may be given to other processes."""
    descriptor = os.memfd_create("dockmirror")
    os.ftruncate(descriptor, SIZE)
    return descriptor
