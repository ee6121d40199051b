"""A look at whether the budget is kept, and a walk where it is not."""

from __future__ import annotations

import os
from pathlib import Path

from attrs import frozen

from .abandoned_partials import count_abandoned, delete_abandoned
from .budget import Budget, Shortfall, StoreUsage, lock_usage_counter
from .store_scan import EvictionResult, StoreScan

_PAUSE = 30.0
"""Seconds between two walks: of what could not go yet, more can then."""
_DAY = 24 * 3600.0


@frozen
class SweepResult:
    """What came of a look.

    :ivar dropped: how many parts of blobs nobody wanted any more.
    :ivar evicted: None where no walk was made.
    :ivar adrift: what no repository had, where that was looked for.
    :ivar lacking: what the file system has too little of, whatever has gone; None where it has enough.
    """

    held: int
    dropped: int
    evicted: EvictionResult | None = None
    unreferenced: EvictionResult | None = None
    shortfall: Shortfall | None = None


class SweepStopped(Exception):
    """The walk was told to end."""


class Sweep:
    """Looks, in a thread; by one process of those that share the directory at a time."""

    def __init__(self, root: Path, budget: Budget) -> None:
        self._root = root
        self.budget = budget
        self._stopping = False

    def stop(self) -> None:
        """Ends a walk that is under way, from another thread."""
        self._stopping = True

    def run(self, grown: int, now: float) -> SweepResult | None:
        """Adds what has been added since the last look, and evicts where that is too much.

        None while another process looks: nothing has been added then.

        :raises Stopped: when it was told to end.
        """
        with lock_usage_counter(self._root) as figures:
            if figures is None:
                return None
            dropped = delete_abandoned(self._root, now)
            known = figures.read()
            if known is None or dropped or self._is_due(known.held + grown, now - known.walked):
                walked = self._walk(dropped, now)
                figures.write(StoreUsage(walked.held, now))
                return walked
            figures.write(StoreUsage(known.held + grown, known.walked))
            return SweepResult(known.held + grown, dropped)

    def collect(self, now: float) -> SweepResult | None:
        """Walks at once, and deletes what no repository has, too; None while another process looks."""
        with lock_usage_counter(self._root) as figures:
            if figures is None:
                return None
            dropped = delete_abandoned(self._root, now)
            walk = StoreScan(self._root, now, self._check)
            held = walk.count()
            adrift = walk.delete_unreferenced()
            held -= adrift.bytes
            evicted = walk.evict(self._need(held))
            figures.write(StoreUsage(held - evicted.bytes, now))
            return SweepResult(held - evicted.bytes, dropped, evicted, adrift)

    def dry_run(self, now: float) -> SweepResult:
        """What ``clear`` would do."""
        walk = StoreScan(self._root, now, self._check)
        held, adrift = walk.count(), walk.find_unreferenced()
        need = self._need(held - adrift.bytes)
        evicted = walk.dry_run(need)
        left = held - adrift.bytes - evicted.bytes
        return SweepResult(left, count_abandoned(self._root, now), evicted, adrift)

    def _is_due(self, held: int, age: float) -> bool:
        return not 0 <= age < _DAY or (age >= _PAUSE and bool(self._need(held)))

    def _walk(self, dropped: int, now: float) -> SweepResult:
        walk = StoreScan(self._root, now, self._check)
        held = walk.count()
        evicted = walk.evict(self._need(held))
        left = held - evicted.bytes
        return SweepResult(left, dropped, evicted, shortfall=self._need(0) or None)

    def _need(self, held: int) -> Shortfall:
        return self.budget.shortfall(held, os.statvfs(self._root))

    def _check(self) -> None:
        if self._stopping:
            raise SweepStopped
