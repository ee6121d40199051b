"""What each registry takes up: measured by one process at a time, and only when somebody wants to know."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from attrs import asdict
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..oci.digest import Digest
from ..status.values import Usage, Used
from ..work.notes import Notes
from . import files, layout
from .eviction import inventory
from .threads import InThread

PERIOD = 600.0
"""Seconds for which what was measured will do."""
SHARE = 50
"""So many times as long as the measuring has taken it will do at least."""
_AGAIN = 10.0
"""Seconds between two looks at whether another process has measured."""
_MOST = 1024 * 1024


class Stopped(Exception):
    """The measuring was told to end."""


class Usages:
    """What was measured last, by whichever of the processes that share the directory."""

    _log = Logger()

    def __init__(self, root: Path, clock: IReactorTime, in_thread: InThread) -> None:
        self._root = root
        self._clock = clock
        self._in_thread = in_thread
        self._known: Usage | None = None
        self._left_alone: Notes[None, bool] = Notes(clock, 1)
        self._running: Deferred[None] | None = None
        self._looks = self._stopping = False

    def latest(self) -> Usage | None:
        """What is known; where that is old, it is measured anew for whoever asks next."""
        if not self._looks and not self._stopping and not self._left_alone.get(None):
            self._looks = True
            self._left_alone.put(None, True, _AGAIN)
            self._running = Deferred.fromCoroutine(self._look(self._clock.seconds()))
        return self._known

    async def stop(self) -> None:
        """Measures no more; fires when nothing is under way any more."""
        self._stopping = True
        if self._running is not None:
            await self._running

    async def _look(self, now: float) -> None:
        try:
            self._known = await self._in_thread(partial(_fresh, self._root, now, self._check)) or self._known
        except Stopped:
            pass
        except Exception:
            self._left_alone.put(None, True, PERIOD)
            self._log.failure("what each registry takes up cannot be measured")
        self._looks = False

    def _check(self) -> None:
        if self._stopping:
            raise Stopped


def _fresh(root: Path, now: float, check: Callable[[], None]) -> Usage | None:
    """None while another process measures."""
    file = files.lock(root / layout.USAGE)
    if file is None:
        return None
    try:
        known = _parsed(os.pread(file, _MOST, 0))
        if known is not None and 0 <= now - known.measured < max(PERIOD, SHARE * known.took):
            return known
        usage = measured(root, now, check)
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(asdict(usage)).encode(), 0)
        return usage
    finally:
        os.close(file)


def measured(root: Path, now: float, check: Callable[[], None] = lambda: None) -> Usage:
    """Walks through everything; calls ``check`` all the time."""
    began = time.monotonic()
    sizes: dict[Digest, int] = {}
    for digest, stored in inventory.contents(root):
        check()
        sizes[digest] = stored.size
    having: dict[str, set[Digest]] = {}
    for repository in inventory.repositories(root):
        check()
        registry = repository.relative_to(root / layout.REPOSITORIES).parts[0]
        contents = having.setdefault(registry, set())
        for links in (layout.LAYERS, layout.REVISIONS):
            contents.update(inventory.linked(repository / links))
    times = Counter(digest for contents in having.values() for digest in contents & sizes.keys())
    used = (_used(name, contents & sizes.keys(), sizes, times) for name, contents in having.items())
    ordered = sorted(used, key=lambda each: (-each.bytes, each.registry))
    return Usage(now, time.monotonic() - began, tuple(ordered))


def _used(name: str, contents: set[Digest], sizes: dict[Digest, int], times: Counter[Digest]) -> Used:
    shared = sum(sizes[each] for each in contents if times[each] > 1)
    return Used(name, sum(sizes[each] for each in contents), shared, len(contents))


def _parsed(text: bytes) -> Usage | None:
    """None where it is nothing, or was not written to its end."""
    try:
        return Usage.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError):
        return None
