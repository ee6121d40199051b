"""Memory that the processes of one mirror share."""

from __future__ import annotations

import mmap
import os
import secrets
from itertools import accumulate

from ..history.pull_table import PULL_TABLE_SIZE
from ..http.usage import COUNTERS_SIZE, LABELLED_COUNTERS_SIZE, REFUSALS_SIZE
from ..system import shared_table
from .client_limits import FAILED_LOGINS_SIZE

_IDENTIFIER_SIZE = 16
_PARTS = (
    COUNTERS_SIZE,
    LABELLED_COUNTERS_SIZE,
    REFUSALS_SIZE,
    PULL_TABLE_SIZE,
    FAILED_LOGINS_SIZE,
    shared_table.DIGESTS_SIZE,
    shared_table.DIGESTS_SIZE,
    _IDENTIFIER_SIZE,
)
SIZE = sum(_PARTS)


class SharedTables:
    """A mapping divided into one table for each purpose.

    :ivar rate_counters: for the ``RateCounters`` of the limits of access.
    :ivar budget_counters: for those of budgets, whose keys clients can make up, with labels.
    :ivar budget_refusals: for the ``RefusalCounters`` of budgets.
    :ivar pulls: for ``PullTable``.
    :ivar failed_logins: for ``FailedLogins``.
    :ivar verified_passwords: for ``Htpasswd``.
    :ivar prefetched: for ``PrefetchRegistry``.
    :ivar mirror_id: the mirror's identifier in ``CDN-Loop``, another one after each start.
    """

    def __init__(self, mapped: mmap.mmap) -> None:
        memory = memoryview(mapped)
        ends = accumulate(_PARTS)
        (
            self.rate_counters,
            self.budget_counters,
            self.budget_refusals,
            self.pulls,
            self.failed_logins,
            self.verified_passwords,
            self.prefetched,
            identifier,
        ) = (memory[end - size : end] for size, end in zip(_PARTS, ends, strict=True))
        self.mirror_id = identifier.hex()

    @classmethod
    def create(cls) -> SharedTables:
        """Create tables for a single process."""
        descriptor = create_shared_memory()
        try:
            return cls.attach(descriptor)
        finally:
            os.close(descriptor)

    @classmethod
    def attach(cls, descriptor: int) -> SharedTables:
        """Map the memory of a descriptor that another process created."""
        return cls(mmap.mmap(descriptor, SIZE))


def create_shared_memory() -> int:
    """Return the descriptor of memory that can be passed to other processes."""
    descriptor = os.memfd_create("dockmirror")
    os.ftruncate(descriptor, SIZE)
    os.pwrite(descriptor, secrets.token_bytes(_IDENTIFIER_SIZE), SIZE - _IDENTIFIER_SIZE)
    return descriptor
