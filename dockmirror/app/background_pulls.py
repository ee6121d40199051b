"""The mirror's own requests: pulls of pinned images and of what API and pages request, and polls of tags."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import asdict, evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..admission.sightings import SHORTEST, PolledUpstream, TagPolling
from ..concurrency.coroutines import Changes, RunInThread, TTLCache
from ..concurrency.periodic_task import PeriodicTask
from ..interfaces import IRegistry
from ..oci.errors import RegistryError, summarize_error
from ..oci.media import EVERYTHING
from ..oci.request import Manifest, RegistryRequest
from ..pull import ImagePuller, PulledImage, Wanted
from ..store import files, layout, pins, warm_ups
from ..store.pins import Pin
from ..store.warm_ups import PULLS, State, UnfinishedWarmUps, WarmUp, WarmUpQueue
from .cache import CacheParts

if TYPE_CHECKING:
    from ..store.bucket.bucket import Bucket

REFRESH_PERIOD = 6 * 3600.0
"""Seconds after which a pinned image is pulled again."""
REFRESH_POLL = 10.0
"""Seconds between two checks for pinned images that are due; a new pin is pulled that soon."""
PIN_READ_INTERVAL = 60.0
"""Seconds after which the pins are read again although none was added or removed."""
REFRESH_RETRY = 900.0
"""Seconds until a failed refresh, or a warm-up whose state cannot be written, is tried again."""
POLL = 2.0
"""Seconds between two looks for new warm-ups."""
_BLOBS_AT_ONCE = 4
_REFRESH_JOBS = 2
_MAX_FAILURES = 10_000
_log = Logger()


class PinRefresh(PeriodicTask):
    """Pulls the pinned images again through the mirror's own registries; one process does it for all.

    The first check is after a pause, so that clients are served first.

    :param registry: returns the registry of the mirror's own host, which a reload replaces.
    """

    def __init__(
        self, root: Path, clock: IReactorTime, in_thread: RunInThread, registry: Callable[[], IRegistry]
    ) -> None:
        super().__init__(self._refresh_due, REFRESH_POLL, clock, "cannot refresh the pinned images")
        self._root = root
        self._clock = clock
        self._in_thread = in_thread
        self._registry = registry
        self._failed: TTLCache[Pin, bool] = TTLCache(clock, _MAX_FAILURES)
        self._version: files.Version | None = None
        self._idle_since = -inf

    async def _refresh_due(self) -> None:
        version, now = files.file_version(self._root / layout.PINS), self._clock.seconds()
        if version == self._version and 0 <= now - self._idle_since < PIN_READ_INTERVAL:
            return  # no thread is needed for that
        is_due = bool(await self._due())
        self._version, self._idle_since = version, -inf if is_due else now
        lock = await self._in_thread(partial(pins.lock_refresh, self._root)) if is_due else None
        if lock is None:
            return
        try:
            for pin in await self._due():
                await self._refresh(pin)
        finally:
            os.close(lock)

    async def _due(self) -> list[Pin]:
        now = self._clock.seconds()
        pinned = await self._in_thread(lambda: list(pins.iter_pins(self._root)))
        return [
            pin
            for pin, refreshed in pinned
            if not 0 <= now - refreshed < REFRESH_PERIOD and not self._failed.get(pin)
        ]

    async def _refresh(self, pin: Pin) -> None:
        wanted, pulled = Wanted(pin.repository, pin.reference, pin.platforms), PulledImage()
        try:
            await ImagePuller(self._registry(), _REFRESH_JOBS).into_cache(wanted, pulled, self._clock)
            await self._in_thread(partial(pins.mark_refreshed, self._root, pin, self._clock.seconds()))
        except (RegistryError, OSError) as error:
            _log.warn(
                "cannot refresh the pinned image {image}: {error}",
                image=str(pin),
                error=summarize_error(error),
            )
            self._failed.put(pin, True, REFRESH_RETRY)
            return
        _log.info(
            "refreshed the pinned image {image}: fetched {fetched} blobs, {size} bytes",
            image=str(pin), fetched=pulled.fetched, size=pulled.bytes,
        )  # fmt: skip


class WarmUpRunner(PeriodicTask):
    """Runs the warm-ups of a queue through the mirror's own registries; one process does it for all.

    A warm-up that a stop interrupts is run again after the next start.

    :param registry: returns the registry of the mirror's own host, which a reload replaces.
    """

    def __init__(
        self,
        root: Path,
        clock: IReactorTime,
        in_thread: RunInThread,
        registry: Callable[[], IRegistry],
        queue: WarmUpQueue = PULLS,
    ) -> None:
        super().__init__(self._run_waiting, POLL, clock, "cannot run the warm-ups")
        self._root = root
        self._clock = clock
        self._in_thread = in_thread
        self._registry = registry
        self._queue = queue
        self._unfinished = UnfinishedWarmUps(root, queue)
        self._unwritten: TTLCache[str, bool] = TTLCache(clock, queue.limit)
        self._version: files.Version | None = None
        self._is_idle = False
        self._ended = Changes()

    async def _run_waiting(self) -> None:
        is_unchanged = self._is_unchanged()
        if is_unchanged and self._is_idle:
            return
        has_waiting = await self._in_thread(self._unfinished.exist)
        self._is_idle = is_unchanged and not has_waiting
        if not has_waiting:
            return
        lock = await self._in_thread(partial(warm_ups.lock_warm_ups, self._root, self._queue))
        if lock is None:
            return
        running: list[Deferred[None]] = []
        try:
            await self._run_all(running)
        finally:
            for each in list(running):
                each.cancel()
            os.close(lock)

    async def _run_all(self, running: list[Deferred[None]]) -> None:
        """Run what waits, and what comes meanwhile, so that a slow upstream holds up only its own."""
        known: set[str] = set()
        waiting: deque[WarmUp] = deque()
        looked: float | None = None
        while True:
            if looked is None or not 0 <= self._clock.seconds() - looked < POLL:
                found = await self._in_thread(partial(self._unfinished.list, known))
                found = [each for each in found if not self._unwritten.get(each.id)]
                known.update(each.id for each in found)
                waiting.extend(found)
                looked = self._clock.seconds()
            while waiting and len(running) < self._queue.jobs:
                self._start(waiting.popleft(), running)
            if not running:
                return
            await self._ended.next().addTimeout(POLL, self._clock, lambda *_: None)

    def _start(self, warm_up: WarmUp, running: list[Deferred[None]]) -> None:
        job = Deferred.fromCoroutine(self._run(warm_up))
        running.append(job)

        def end(_: None) -> None:
            running.remove(job)
            self._ended.notify()

        job.addErrback(_log_failure).addCallback(end)

    def _is_unchanged(self) -> bool:
        """Return whether the directory is as it was at the last look; no thread is needed for that."""
        version, before = files.file_version(self._root / self._queue.directory), self._version
        self._version = version
        return version == before

    async def _run(self, warm_up: WarmUp) -> None:
        """Run a warm-up; while its state cannot be written, it is not run again for a while."""
        try:
            await self._write(warm_up, "running")
            ended = await (self._ask_tag(warm_up) if warm_up.tag_only else self._pull(warm_up))
            await self._write(ended, "failed" if ended.error else "done")
        except Exception:
            self._unwritten.put(warm_up.id, True, REFRESH_RETRY)
            raise
        _log.info("warm-up of {image}: {result}", image=warm_up.image, result=ended.error or "done")

    async def _ask_tag(self, warm_up: WarmUp) -> WarmUp:
        """Have the upstream asked what the tag names, however fresh that is."""
        target = Manifest(warm_up.repository, warm_up.reference)
        request = RegistryRequest(target, accept=EVERYTHING, revalidate=True)
        try:
            answer = await self._registry().fetch(request)
        except (RegistryError, OSError) as failure:
            return evolve(warm_up, error=summarize_error(failure))
        answer.body.discard()
        error = answer.cache.unconfirmed if answer.cache else ""
        digest = str(answer.body.descriptor.digest or "")
        return evolve(warm_up, error=error, manifests=0 if error else 1, digest=digest)

    async def _pull(self, warm_up: WarmUp) -> WarmUp:
        wanted = Wanted(
            warm_up.repository, warm_up.reference, warm_up.platforms, warm_up.referrers, warm_up.refresh
        )
        pulled, error = PulledImage(), ""
        try:
            puller = ImagePuller(self._registry(), _BLOBS_AT_ONCE, note=_log_note)
            await puller.into_cache(wanted, pulled, self._clock)
        except (RegistryError, OSError) as failure:
            error = summarize_error(failure)
        return evolve(warm_up, error=error, **asdict(pulled))

    async def _write(self, warm_up: WarmUp, state: State) -> None:
        changed = evolve(warm_up, state=state, changed=self._clock.seconds())
        await self._in_thread(partial(warm_ups.write_warm_up, self._root, changed))


def _log_note(note: str) -> None:
    _log.info("warm-up: {note}", note=note)


def _log_failure(failure: Failure) -> None:
    """Log why a warm-up could not be recorded; a cancelled one is run again after the next start."""
    if failure.check(OSError):
        _log.warn("cannot run the warm-ups: {error}", error=failure.value)
    elif not failure.check(CancelledError):
        _log.failure("cannot run the warm-ups", failure)


def make_tag_polling(
    cache: CacheParts, polled: Callable[[], Mapping[str, PolledUpstream]], clock: IReactorTime
) -> TagPolling:
    """Return the service that polls tags, in one process of one machine.

    :param polled: returns the upstreams, by their names in the settings; a reload changes them.
    """
    turns = PollTurns(cache.root, cache.in_thread, cache.bucket, clock)
    return TagPolling(polled, cache.tag_history, turns.claim, clock)


class PollTurns:
    """Gives one process at a time the turn to poll; of the mirrors of a bucket, one in an hour.

    :param root: the cache directory.
    """

    def __init__(
        self, root: Path, in_thread: RunInThread, bucket: Bucket | None, clock: IReactorTime
    ) -> None:
        self._lock = root / layout.TAG_POLL_LOCK
        self._in_thread = in_thread
        self._bucket = bucket
        self._clock = clock

    async def claim(self) -> Callable[[], None] | None:
        """Return a function that ends the turn, or None if another process has it."""
        lock = await self._in_thread(lambda: files.lock(self._lock))
        if lock is None:
            return None
        try:
            if self._bucket is None or await self._claim_hour(self._bucket):
                return partial(os.close, lock)
        except OSError:  # logged by the bucket
            pass
        os.close(lock)
        return None

    async def _claim_hour(self, bucket: Bucket) -> bool:
        hour = int(self._clock.seconds() // SHORTEST)
        if not await bucket.put_new(layout.TAG_POLLS / str(hour), b""):
            return False
        polls = await bucket.list(layout.TAG_POLLS)
        await bucket.delete([each.key for each in polls if not each.key.endswith(f"/{hour}")])
        return True
