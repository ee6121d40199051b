"""Measure the space that each registry takes, on demand and by one process at a time."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from attrs import asdict
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..concurrency.caching import SingleFlight, TTLCache
from ..status.status_values import RegistryUsage, Usage
from . import files, layout
from .store_index import StoreIndex
from .threads import RunInThread

MIN_INTERVAL = 1.0
"""Seconds for which a measurement is fresh, at least."""
COST_FACTOR = 10
"""A measurement is fresh for this many times its own duration, at least."""
MAX_WAIT = 2.0
"""Seconds that a caller waits; then the previous measurement is returned, with its age."""
_FAILURE_INTERVAL = 600.0
"""Seconds without measurements after one has failed."""
_MAX_FILE_SIZE = 1024 * 1024


class MeasurementStopped(Exception):
    """Raised to end a measurement when the mirror stops."""


class UsageReport:
    """Measures on demand; a fresh measurement by another process is used instead.

    :ivar index: brought up to date by each measurement here.
    """

    _log = Logger()

    def __init__(self, root: Path, clock: IReactorTime, in_thread: RunInThread) -> None:
        self.index = StoreIndex(root)
        self._root = root
        self._clock = clock
        self._in_thread = in_thread
        self._latest: Usage | None = None
        self._is_fresh: TTLCache[None, bool] = TTLCache(clock, 1)
        self._flight: SingleFlight[None, None] = SingleFlight()
        self._measuring = self._stopping = False

    async def latest(self) -> Usage | None:
        """Return the current usage, or the previous one if measuring takes long."""
        if not self._stopping and not self._is_fresh.get(None):
            measured = Deferred.fromCoroutine(self._flight.get(None, self._measure))
            with suppress(TimeoutError):
                await measured.addTimeout(MAX_WAIT, self._clock)
        return self._latest

    async def stop(self) -> None:
        """Stop measuring; fires when no measurement is under way any more."""
        self._stopping = True
        if self._measuring:
            await self._flight.get(None, self._measure)

    async def _measure(self) -> None:
        self._measuring = True
        measure = partial(_measure_unless_fresh, self._root, self.index, self._clock.seconds(), self._check)
        interval = MIN_INTERVAL
        try:
            self._latest = await self._in_thread(measure) or self._latest
        except MeasurementStopped:
            pass
        except Exception:
            interval = _FAILURE_INTERVAL
            self._log.failure("cannot measure the space that each registry takes")
        self._is_fresh.put(None, True, interval)
        self._measuring = False

    def _check(self) -> None:
        if self._stopping:
            raise MeasurementStopped


def _measure_unless_fresh(
    root: Path, index: StoreIndex, now: float, check: Callable[[], None]
) -> Usage | None:
    """Return a fresh measurement; None while another process measures."""
    file = files.lock(root / layout.USAGE_REPORT)
    if file is None:
        return None
    try:
        previous = _parse_usage(os.pread(file, _MAX_FILE_SIZE, 0))
        if previous is not None:
            lifetime = max(MIN_INTERVAL, COST_FACTOR * previous.took)
            if 0 <= now - previous.measured < lifetime:
                return previous
        usage = measure_usage(index, now, check)
        with suppress(OSError):  # on a full disk each process measures for itself
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(asdict(usage)).encode(), 0)
        return usage
    finally:
        os.close(file)


def measure_usage(index: StoreIndex, now: float, check: Callable[[], None] = lambda: None) -> Usage:
    """Bring the index up to date, and sum it up; ``check`` is called often and may raise to stop."""
    started = time.monotonic()
    held = index.snapshot(check)
    registries = (
        RegistryUsage(name, each.bytes, each.shared, each.contents) for name, each in held.by_registry.items()
    )
    ordered = sorted(registries, key=lambda each: (-each.bytes, each.registry))
    return Usage(now, time.monotonic() - started, tuple(ordered), held.held_bytes)


def _parse_usage(text: bytes) -> Usage | None:
    """Parse a stored measurement; None if it is missing or incomplete."""
    try:
        return Usage.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError):
        return None
