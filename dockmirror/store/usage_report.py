"""The space that each registry takes up, measured by one process at a time when somebody wants to know."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from attrs import asdict
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..concurrency.single_flight import SingleFlight
from ..concurrency.ttl_cache import TTLCache
from ..oci.digest import Digest
from ..status.status_values import RegistryUsage, Usage
from . import files, layout
from .eviction import store_files
from .threads import RunInThread

PERIOD = 1.0
"""Seconds for which what was measured will do."""
SHARE = 50
"""So many times as long as the measuring has taken it will do at least."""
PATIENCE = 2.0
"""Seconds for which whoever asks waits; then what was measured before is told, with its age."""
_LEFT_ALONE = 600.0
"""Seconds for which nothing is measured after that has failed."""
_MOST = 1024 * 1024


class MeasurementStopped(Exception):
    """The measuring was told to end."""


class UsageReport:
    """Measures when somebody asks; what another process has measured a moment ago will do."""

    _log = Logger()

    def __init__(self, root: Path, clock: IReactorTime, in_thread: RunInThread) -> None:
        self._root = root
        self._clock = clock
        self._in_thread = in_thread
        self._known: Usage | None = None
        self._left_alone: TTLCache[None, bool] = TTLCache(clock, 1)
        self._looks: SingleFlight[None, None] = SingleFlight()
        self._looking = self._stopping = False

    async def latest(self) -> Usage | None:
        """Return what is held now, or what was known before where finding that out takes long."""
        if not self._stopping and not self._left_alone.get(None):
            looked = Deferred.fromCoroutine(self._looks.get(None, self._look))
            with suppress(TimeoutError):
                await looked.addTimeout(PATIENCE, self._clock)
        return self._known

    async def stop(self) -> None:
        """Measures no more; fires when nothing is under way any more."""
        self._stopping = True
        if self._looking:
            await self._looks.get(None, self._look)

    async def _look(self) -> None:
        self._looking = True
        measuring = partial(_fresh, self._root, self._clock.seconds(), self._check)
        pause = PERIOD
        try:
            self._known = await self._in_thread(measuring) or self._known
        except MeasurementStopped:
            pass
        except Exception:
            pause = _LEFT_ALONE
            self._log.failure("what each registry takes up cannot be measured")
        self._left_alone.put(None, True, pause)
        self._looking = False

    def _check(self) -> None:
        if self._stopping:
            raise MeasurementStopped


def _fresh(root: Path, now: float, check: Callable[[], None]) -> Usage | None:
    """None while another process measures."""
    file = files.lock(root / layout.USAGE)
    if file is None:
        return None
    try:
        known = _parsed(os.pread(file, _MOST, 0))
        if known is not None and 0 <= now - known.measured < max(PERIOD, SHARE * known.took):
            return known
        usage = measure_usage(root, now, check)
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(asdict(usage)).encode(), 0)
        return usage
    finally:
        os.close(file)


def measure_usage(root: Path, now: float, check: Callable[[], None] = lambda: None) -> Usage:
    """Walks through everything; calls ``check`` all the time."""
    began = time.monotonic()
    sizes: dict[Digest, int] = {}
    others = sum(
        stored.size for _, stored in (*store_files.iter_documents(root), *store_files.iter_downloads(root))
    )
    for digest, stored in store_files.iter_contents(root):
        check()
        sizes[digest] = stored.size
    having: dict[str, set[Digest]] = {}
    for repository in store_files.iter_repositories(root):
        check()
        registry = repository.relative_to(root / layout.REPOSITORIES).parts[0]
        contents = having.setdefault(registry, set())
        for links in (layout.LAYERS, layout.REVISIONS):
            contents.update(store_files.iter_links(repository / links))
    times = Counter(digest for contents in having.values() for digest in contents & sizes.keys())
    held = {name: contents & sizes.keys() for name, contents in having.items()}
    used = (_used(name, contents, sizes, times) for name, contents in held.items() if contents)
    ordered = sorted(used, key=lambda each: (-each.bytes, each.registry))
    return Usage(now, time.monotonic() - began, tuple(ordered), sum(sizes.values()) + others)


def _used(
    name: str, contents: set[Digest], sizes: dict[Digest, int], times: Counter[Digest]
) -> RegistryUsage:
    shared = sum(sizes[each] for each in contents if times[each] > 1)
    return RegistryUsage(name, sum(sizes[each] for each in contents), shared, len(contents))


def _parsed(text: bytes) -> Usage | None:
    """None where it is nothing, or was not written to its end."""
    try:
        return Usage.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError):
        return None
