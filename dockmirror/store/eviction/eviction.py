"""Keep a store within its budget."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ..threads import RunInThread
from .budget import Budget, Shortfall, read_store_usage
from .sweep import Sweep, SweepResult, SweepStopped

CHECK_INTERVAL = 10.0
"""Seconds between two checks of the budget."""


class Eviction:
    """Keeps a store within its budget, in the background, with any number of processes on the directory.

    Every few seconds the processes add up the bytes they have stored. Only if the sum exceeds the budget, the
    file system has too little space or the last scan was a day ago, one of them scans the directory, in a
    thread, and evicts the least recently used contents until a tenth of the budget is spare. The only state
    is the usage counter, which a scan corrects.

    :ivar size: the number of stored bytes, as far as known.
    :ivar scans: the number of scans by this process.
    :ivar evicted: the number of contents that it has evicted; ``evicted_bytes``, their size.
    :ivar abandoned: the number of abandoned partial downloads that it has deleted.
    """

    def __init__(self, root: Path, clock: IReactorTime, in_thread: RunInThread, budget: Budget) -> None:
        self.size = self.scans = self.evicted = self.evicted_bytes = self.abandoned = 0
        self._root = root
        self._clock = clock
        self._in_thread = in_thread
        self._sweep = Sweep(root, budget)
        self._added = 0
        self._is_short = False
        self._loop = LoopingCall(self._check)
        self._loop.clock = clock
        self._ended: Deferred[LoopingCall] | None = None
        self._log = Logger()

    def add(self, size: int) -> None:
        """Count bytes that were stored."""
        self._added += size

    @property
    def limit(self) -> int:
        """The number of bytes that may be stored."""
        return self._sweep.budget.size

    def set_budget(self, budget: Budget) -> None:
        """Use another budget from the next check on."""
        self._sweep.budget = budget

    def start(self) -> None:
        """Start checking, first after an interval, so that no scan delays the start."""
        self._ended = self._loop.start(CHECK_INTERVAL, now=False)

    async def stop(self) -> None:
        """Stop checking; fires when a scan under way has ended."""
        self._sweep.stop()
        if self._ended is not None:
            self._loop.stop()
            await self._ended

    async def _check(self) -> None:
        added, self._added = self._added, 0
        result: SweepResult | None = None
        try:
            result = await self._in_thread(partial(self._sweep.run, added, self._clock.seconds()))
        except SweepStopped:
            return
        except OSError as error:
            self._log.error("the cache cannot be kept within its budget: {error}", error=error)
        except Exception:
            self._log.failure("the cache cannot be kept within its budget")
        if result is None:
            self._added += added
            await self._read_usage()
        else:
            self._record(result)

    async def _read_usage(self) -> None:
        """Take over the number of bytes from the process that is checking now."""
        usage = await self._in_thread(partial(read_store_usage, self._root))
        if usage is not None:
            self.size = usage.size

    def _record(self, result: SweepResult) -> None:
        self.size = result.size
        self.abandoned += result.abandoned
        if result.evicted is None:
            return
        self.scans += 1
        self._log_shortage(result)
        self.evicted += len(result.evicted.contents)
        self.evicted_bytes += result.evicted.bytes
        if result.evicted.contents:
            self._log.info(
                "evicted {count} contents of {size} bytes; {total} bytes are stored",
                count=len(result.evicted.contents),
                size=result.evicted.bytes,
                total=result.size,
            )

    def _log_shortage(self, result: SweepResult) -> None:
        """Log once if too little is free although everything evictable is gone, and once when that ends."""
        shortfall, was_short = result.shortfall, self._is_short
        self._is_short = shortfall is not None
        if shortfall is not None and not was_short:
            self._log.warn(
                "everything evictable is evicted, and the cache's file system still has {shortfall} less free"
                " than 'min_free': free space on it",
                shortfall=_format_shortfall(shortfall),
            )
        elif was_short and shortfall is None:
            self._log.info("the cache's file system has enough free again")


def _format_shortfall(shortfall: Shortfall) -> str:
    counts = [f"{shortfall.bytes / 1e9:.3g} GB"] if shortfall.bytes > 0 else []
    return " and ".join([*counts, f"{shortfall.inodes} inodes"] if shortfall.inodes > 0 else counts)
