"""Keep a store within its budget: sweeps, and the service that runs them in the background."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

from attrs import Factory, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...concurrency.coroutines import RunInThread
from ...config.notation import format_size
from ...system.times import ClockHistory, read_uptime
from .. import files, layout, pins
from .removal import count_abandoned, delete_abandoned
from .retention import INTERVAL, ExpiredImage, Retention
from .store_budget import (
    Budget,
    Shortfall,
    StoreUsage,
    UsageCounter,
    read_store_usage,
    try_lock_usage_counter,
)
from .store_scan import EvictionResult, StoreScan

_log = Logger()
_DAY = 24 * 3600.0
_HOUR = 3600.0
SCAN_INTERVAL = 30.0
"""Seconds between two scans: more may have become evictable by then."""


@frozen
class SweepResult:
    """The outcome of a sweep.

    :ivar size: the number of stored bytes.
    :ivar abandoned: the number of abandoned partial downloads that were deleted.
    :ivar evicted: None if there was no scan.
    :ivar unreferenced: the contents without links, if these were collected.
    :ivar shortfall: what the file system still lacks; None if it has enough.
    :ivar expired: the images that the rules for retention no longer keep.
    :ivar staying: the bytes that the scan did not evict, by the reason.
    """

    size: int
    abandoned: int
    evicted: EvictionResult | None = None
    unreferenced: EvictionResult | None = None
    shortfall: Shortfall | None = None
    expired: Sequence[ExpiredImage] = ()
    staying: Mapping[str, int] = Factory(dict)

    def describe_staying(self) -> str:
        """Return why contents were not evicted, the reason with the most bytes first."""
        reasons = sorted(self.staying, key=lambda reason: -self.staying[reason])
        return ", ".join(reason for reason in reasons if self.staying[reason]) or "nothing"


class SweepStopped(Exception):
    """Raised to end a scan when the mirror stops."""


class Sweep:
    """Sweeps a store, in a thread; one process of those that share the directory at a time.

    :ivar unreadable: why a repository could not be read, so that nothing of it was evicted.
    """

    def __init__(
        self,
        root: Path,
        budget: Budget,
        retention: Retention | None = None,
        uptime: Callable[[], float] = read_uptime,
    ) -> None:
        self._root = root
        self._uptime = uptime
        self.budget = budget
        self.retention = retention or Retention()
        self.unreadable: OSError | None = None
        self._stopping = False

    def stop(self) -> None:
        """Stop a scan that is under way in another thread."""
        self._stopping = True

    def run(self, added: int, now: float) -> SweepResult | None:
        """Count bytes that were stored since the last sweep, and evict if the budget is exceeded.

        Returns None, without counting the bytes, while another process sweeps.

        :raises SweepStopped: if it was stopped.
        """
        if self.unreadable is not None:
            with suppress(OSError):
                files.list_names(Path(self.unreadable.filename))
                self.unreadable = None
        with try_lock_usage_counter(self._root) as counter:
            if counter is None:
                return None
            abandoned = delete_abandoned(self._root, now)
            usage = counter.read()
            size = 0 if usage is None else max(0, usage.size + added)
            if usage is None or abandoned or self._is_due(size, now - usage.scanned):
                return self._scan(counter, abandoned, now)
            if size != usage.size:  # an idle mirror keeps no disk awake
                counter.write(StoreUsage(size, usage.scanned))
            return SweepResult(size, abandoned)

    def collect(self, now: float) -> SweepResult | None:
        """Scan at once and delete unreferenced contents, too; None while another process sweeps."""
        with try_lock_usage_counter(self._root) as counter:
            if counter is None:
                return None
            abandoned = delete_abandoned(self._root, now)
            return self._scan(counter, abandoned, now, StoreScan.delete_unreferenced)

    def dry_run(self, now: float) -> SweepResult:
        """Return what ``collect`` would do; the rules for retention may make room for what it evicts."""
        clock = self._read_clock(now).advance(now, self._uptime())
        expired = self.retention.plan(self._root, clock, self._check)
        scan = self._begin_scan(clock)
        size, unreferenced = scan.measure(), scan.find_unreferenced()
        shortfall = self._shortfall(size - unreferenced.bytes)
        evicted = scan.dry_run(shortfall)
        freed = unreferenced.bytes + evicted.bytes
        return SweepResult(
            size - freed, count_abandoned(self._root, now), evicted, unreferenced,
            self._shortfall(0) - Shortfall(freed) or None, expired, scan.staying,
        )  # fmt: skip

    def _read_clock(self, now: float) -> ClockHistory:
        """Return when the clock was set, as far as scans before this one have seen."""
        found = files.read_small_file(self._root / layout.CLOCK_HISTORY)
        known = ClockHistory.parse(found.data) if found else None
        return known or ClockHistory(now, self._uptime())

    def _record_clock(self, now: float) -> ClockHistory:
        """Return when the clock was set, as far as is known now, and store it; log each step forward once."""
        known = self._read_clock(now)
        clock = known.advance(now, self._uptime())
        path, temporary = self._root / layout.CLOCK_HISTORY, self._root / layout.TEMPORARY
        with suppress(OSError):
            files.replace_file(path, bytes(clock), temporary, now)
            step = clock.steps[-1][1] if clock.steps != known.steps else 0.0
            if step >= _HOUR and any(rule.unused is not None for rule in self.retention.rules):
                _log.info(
                    "the clock was set forward by {step}, or the machine was off:"
                    " 'unused' in the rules for retention does not count this time",
                    step=str(timedelta(seconds=round(step))),
                )
        return clock

    def _expire(self, clock: ClockHistory) -> Sequence[ExpiredImage]:
        """Delete the images that the rules for retention no longer keep, unless that is not certain."""
        try:
            expired = self.retention.plan(self._root, clock, self._check)
        except OSError as error:
            _log.error("the rules for retention are not applied: {error}", error=str(error))
            return ()
        try:
            self.retention.apply(self._root, expired)
        except OSError as error:
            _log.error(
                "images that the retention rules no longer keep cannot be deleted: {error}", error=str(error)
            )
            return ()
        return expired

    def _begin_scan(self, clock: ClockHistory) -> StoreScan:
        """Begin a scan that evicts nothing that policies need, as far as that is known."""
        needed = list(pins.iter_held_manifests(self._root, clock))
        try:
            needed += self.retention.needed()
        except OSError as error:
            _log.error("images that policies need may be evicted: {error}", error=str(error))
        return StoreScan(self._root, clock.now, self._check, needed)

    def _is_due(self, size: int, age: float) -> bool:
        longest = INTERVAL if self.retention.rules else _DAY
        return not 0 <= age < longest or (age >= SCAN_INTERVAL and bool(self._shortfall(size)))

    def _scan(
        self,
        counter: UsageCounter,
        abandoned: int,
        now: float,
        collect: Callable[[StoreScan], EvictionResult | None] = lambda _: None,
    ) -> SweepResult:
        clock = self._record_clock(now)
        expired = self._expire(clock)
        scan = self._begin_scan(clock)
        size = scan.measure()
        unreferenced = collect(scan)
        size -= unreferenced.bytes if unreferenced else 0
        evicted = scan.evict(self._shortfall(size))
        self.unreadable = scan.unreadable
        size -= evicted.bytes
        counter.write(StoreUsage(size, now))
        shortfall = self._shortfall(0) or None
        return SweepResult(size, abandoned, evicted, unreferenced, shortfall, expired, scan.staying)

    def _shortfall(self, size: int) -> Shortfall:
        return self.budget.shortfall(size, os.statvfs(self._root))

    def _check(self) -> None:
        if self._stopping:
            raise SweepStopped


CHECK_INTERVAL = 10.0
"""Seconds between two checks of the budget."""


class Eviction:
    """Keeps a store within its budget, in the background, with any number of processes on the directory.

    Every few seconds the processes add up the bytes they have stored. Only if the sum exceeds the budget, the
    file system has too little space or the last scan was a day ago, one of them scans the directory, in a
    thread, and evicts the least recently used contents until a tenth of the budget is spare. The state is
    the usage counter, which a scan corrects, and when the clock was set.

    :ivar size: the number of stored bytes, as far as known.
    :ivar scans: the number of scans by this process.
    :ivar evicted: the number of contents that it has evicted; ``evicted_bytes``, their size.
    :ivar abandoned: the number of abandoned partial downloads that it has deleted.
    :ivar expired: the number of images that it has deleted by the rules for retention.
    :ivar failure: why contents cannot be evicted, as far as this process has tried; None while they can.
    :ivar is_short: True while the file system has too little space although everything evictable is gone.
    """

    def __init__(self, root: Path, clock: IReactorTime, in_thread: RunInThread, budget: Budget) -> None:
        self.size = self.scans = self.evicted = self.evicted_bytes = self.abandoned = self.expired = 0
        self._root = root
        self._clock = clock
        self._in_thread = in_thread
        self._sweep = Sweep(root, budget)
        self._added = 0
        self.is_short = False
        self.failure: str | None = None
        self._loop = LoopingCall(self._check)
        self._loop.clock = clock
        self._ended: Deferred[LoopingCall] | None = None
        self._log = Logger()

    def add(self, size: int) -> None:
        """Count bytes that were stored; a negative number if a file was deleted."""
        self._added += size

    @property
    def limit(self) -> int:
        """The number of bytes that may be stored."""
        return self._sweep.budget.size

    @property
    def min_free(self) -> int:
        """The number of bytes that is to stay free on the file system."""
        return self._sweep.budget.free_bytes

    def set_budget(self, budget: Budget) -> None:
        """Use another budget from the next check on."""
        self._sweep.budget = budget

    def set_retention(self, retention: Retention) -> None:
        """Use other rules for retention from the next scan on."""
        self._sweep.retention = retention

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
        except Exception as error:
            self._note_failure(error)
        if result is None:
            self._added += added
            await self._read_usage()
        else:
            self._note_failure(self._sweep.unreadable)
            self._record(result)

    def _note_failure(self, error: Exception | None) -> None:
        """Log once that eviction fails, with a traceback unless the disk does, and once that it works."""
        failure, previous = str(error) if error is not None else None, self.failure
        self.failure = failure
        if failure == previous:
            return
        if error is None:
            self._log.info("the cache can be kept within its budget again")
        elif isinstance(error, OSError):
            self._log.error("the cache cannot be kept within its budget: {error}", error=failure)
        else:
            self._log.failure("the cache cannot be kept within its budget", Failure(error))

    async def _read_usage(self) -> None:
        """Take over the number of bytes from the process that is checking now."""
        usage = await self._in_thread(partial(read_store_usage, self._root))
        if usage is not None:
            self.size = usage.size

    def _record(self, result: SweepResult) -> None:
        self.size = result.size
        self.abandoned += result.abandoned
        self.expired += len(result.expired)
        for each in result.expired:
            self._log.info("deleted {image}: {reason}", image=str(each.image), reason=each.reason)
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
        shortfall, was_short = result.shortfall, self.is_short
        self.is_short = shortfall is not None
        if shortfall is not None and not was_short:
            self._log.warn(
                "everything evictable is evicted, and the cache's file system still has {shortfall} less free"
                " than 'min_free': free space on it; what stays in the cache: {staying}",
                shortfall=format_shortfall(shortfall),
                staying=result.describe_staying(),
            )
        elif was_short and shortfall is None:
            self._log.info("the cache's file system has enough free again")


def format_shortfall(shortfall: Shortfall) -> str:
    counts = [format_size(shortfall.bytes)] if shortfall.bytes > 0 else []
    return " and ".join([*counts, f"{shortfall.inodes} inodes"] if shortfall.inodes > 0 else counts)
