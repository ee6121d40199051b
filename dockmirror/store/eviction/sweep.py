"""A look at whether the budget is kept, and a walk where it is not."""

from __future__ import annotations

import os
from pathlib import Path

from attrs import frozen

from .budget import Budget, Need
from .figures import Figures, only_one
from .leftovers import count_leftovers, drop_leftovers
from .walk import Evicted, Walk

_PAUSE = 30.0
"""Seconds between two walks: of what could not go yet, more can then."""
_DAY = 24 * 3600.0


@frozen
class Swept:
    """What came of a look.

    :ivar dropped: how many parts of blobs nobody wanted any more.
    :ivar evicted: None where no walk was made.
    :ivar adrift: what no repository had, where that was looked for.
    :ivar lacking: what the file system has too little of, whatever has gone; None where it has enough.
    """

    held: int
    dropped: int
    evicted: Evicted | None = None
    adrift: Evicted | None = None
    lacking: Need | None = None


class Stopped(Exception):
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

    def look(self, grown: int, now: float) -> Swept | None:
        """Adds what has been added since the last look, and evicts where that is too much.

        None while another process looks: nothing has been added then.

        :raises Stopped: when it was told to end.
        """
        with only_one(self._root) as figures:
            if figures is None:
                return None
            dropped = drop_leftovers(self._root, now)
            known = figures.read()
            if known is None or dropped or self._is_due(known.held + grown, now - known.walked):
                walked = self._walk(dropped, now)
                figures.write(Figures(walked.held, now))
                return walked
            figures.write(Figures(known.held + grown, known.walked))
            return Swept(known.held + grown, dropped)

    def clear(self, now: float) -> Swept | None:
        """Walks at once, and deletes what no repository has, too; None while another process looks."""
        with only_one(self._root) as figures:
            if figures is None:
                return None
            dropped = drop_leftovers(self._root, now)
            walk = Walk(self._root, now, self._check)
            held = walk.count()
            adrift = walk.drop_adrift()
            held -= adrift.bytes
            evicted = walk.evict(self._need(held))
            figures.write(Figures(held - evicted.bytes, now))
            return Swept(held - evicted.bytes, dropped, evicted, adrift)

    def foresee(self, now: float) -> Swept:
        """What ``clear`` would do."""
        walk = Walk(self._root, now, self._check)
        held, adrift = walk.count(), walk.foresee_adrift()
        need = self._need(held - adrift.bytes)
        evicted = walk.foresee(need)
        left = held - adrift.bytes - evicted.bytes
        return Swept(left, count_leftovers(self._root, now), evicted, adrift)

    def _is_due(self, held: int, age: float) -> bool:
        return not 0 <= age < _DAY or (age >= _PAUSE and bool(self._need(held)))

    def _walk(self, dropped: int, now: float) -> Swept:
        walk = Walk(self._root, now, self._check)
        held = walk.count()
        evicted = walk.evict(self._need(held))
        left = held - evicted.bytes
        return Swept(left, dropped, evicted, lacking=self._need(0) or None)

    def _need(self, held: int) -> Need:
        return self.budget.need(held, os.statvfs(self._root))

    def _check(self) -> None:
        if self._stopping:
            raise Stopped
