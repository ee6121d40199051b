"""Check a store's budget and evict what exceeds it."""

from __future__ import annotations

import os
from pathlib import Path

from attrs import frozen

from .abandoned_partials import count_abandoned, delete_abandoned
from .budget import Budget, Shortfall, StoreUsage, try_lock_usage_counter
from .store_scan import EvictionResult, StoreScan

_SCAN_INTERVAL = 30.0
"""Seconds between two scans: more may have become evictable by then."""
_DAY = 24 * 3600.0


@frozen
class SweepResult:
    """The outcome of a sweep.

    :ivar size: the number of stored bytes.
    :ivar abandoned: the number of abandoned partial downloads that were deleted.
    :ivar evicted: None if there was no scan.
    :ivar unreferenced: the contents without links, if these were collected.
    :ivar shortfall: what the file system still lacks; None if it has enough.
    """

    size: int
    abandoned: int
    evicted: EvictionResult | None = None
    unreferenced: EvictionResult | None = None
    shortfall: Shortfall | None = None


class SweepStopped(Exception):
    """Raised to end a scan when the mirror stops."""


class Sweep:
    """Sweeps a store, in a thread; one process of those that share the directory at a time."""

    def __init__(self, root: Path, budget: Budget) -> None:
        self._root = root
        self.budget = budget
        self._stopping = False

    def stop(self) -> None:
        """Stop a scan that is under way in another thread."""
        self._stopping = True

    def run(self, added: int, now: float) -> SweepResult | None:
        """Count bytes that were stored since the last sweep, and evict if the budget is exceeded.

        Returns None, without counting the bytes, while another process sweeps.

        :raises SweepStopped: if it was stopped.
        """
        with try_lock_usage_counter(self._root) as counter:
            if counter is None:
                return None
            abandoned = delete_abandoned(self._root, now)
            usage = counter.read()
            if usage is None or abandoned or self._is_due(usage.size + added, now - usage.scanned):
                result = self._scan(abandoned, now)
                counter.write(StoreUsage(result.size, now))
                return result
            counter.write(StoreUsage(usage.size + added, usage.scanned))
            return SweepResult(usage.size + added, abandoned)

    def collect(self, now: float) -> SweepResult | None:
        """Scan at once and delete unreferenced contents, too; None while another process sweeps."""
        with try_lock_usage_counter(self._root) as counter:
            if counter is None:
                return None
            abandoned = delete_abandoned(self._root, now)
            scan = StoreScan(self._root, now, self._check)
            size = scan.measure()
            unreferenced = scan.delete_unreferenced()
            size -= unreferenced.bytes
            evicted = scan.evict(self._shortfall(size))
            counter.write(StoreUsage(size - evicted.bytes, now))
            return SweepResult(size - evicted.bytes, abandoned, evicted, unreferenced)

    def dry_run(self, now: float) -> SweepResult:
        """Return what ``collect`` would do."""
        scan = StoreScan(self._root, now, self._check)
        size, unreferenced = scan.measure(), scan.find_unreferenced()
        shortfall = self._shortfall(size - unreferenced.bytes)
        evicted = scan.dry_run(shortfall)
        remaining = size - unreferenced.bytes - evicted.bytes
        return SweepResult(remaining, count_abandoned(self._root, now), evicted, unreferenced)

    def _is_due(self, size: int, age: float) -> bool:
        return not 0 <= age < _DAY or (age >= _SCAN_INTERVAL and bool(self._shortfall(size)))

    def _scan(self, abandoned: int, now: float) -> SweepResult:
        scan = StoreScan(self._root, now, self._check)
        size = scan.measure()
        evicted = scan.evict(self._shortfall(size))
        remaining = size - evicted.bytes
        return SweepResult(remaining, abandoned, evicted, shortfall=self._shortfall(0) or None)

    def _shortfall(self, size: int) -> Shortfall:
        return self.budget.shortfall(size, os.statvfs(self._root))

    def _check(self) -> None:
        if self._stopping:
            raise SweepStopped
