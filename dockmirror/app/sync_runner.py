"""Runs the rules that keep images in sync with their upstreams."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..concurrency.periodic_task import PeriodicTask
from ..interfaces import IRegistry
from ..oci.errors import RegistryError, TooManyRequests, summarize
from ..oci.media import EVERYTHING
from ..oci.request import Manifest, RegistryRequest
from ..pull import HeldCheck, ImagePuller, PulledImage, Wanted, explain_missing
from ..status.status_values import Quota
from ..store import layout, pins, sync_states
from ..store.pins import Pin
from ..store.sync_states import SyncState
from ..store.threads import RunInThread
from .sync_rules import SyncRule, find_images

if TYPE_CHECKING:
    from ..store.bucket.bucket import Bucket

POLL = 10.0
"""Seconds between two checks for rules that are due."""
RETRY = 900.0
"""Seconds after which a rule is run again whose tags could not be listed."""
QUOTA_PAUSE = 3600.0
"""Seconds after which a rule goes on that has paused for the upstream's rate limit."""
QUOTA_SHARE = 0.2
"""The share of an upstream's rate limit that is left to clients."""
_JOBS = 2
_log = Logger()


def is_quota_low(quota: Quota | None) -> bool:
    """Return whether the rest of an upstream's rate limit is left to clients."""
    if quota is None or quota.remaining is None:
        return False
    return quota.remaining <= QUOTA_SHARE * (quota.limit or 0)


class SyncTurns:
    """Gives the turn to run a rule to one of the mirrors that share a bucket.

    :param bucket: the bucket; None if the cache is on the local disk only.
    """

    def __init__(self, bucket: Bucket | None) -> None:
        self._bucket = bucket

    async def claim(self, key: str, number: int) -> bool:
        """Return whether this mirror has the turn of that number.

        :raises OSError: when the bucket fails.
        """
        if self._bucket is None:
            return True
        name = f"{key}-{number}"
        if not await self._bucket.put_new(layout.SYNC_TURNS / name, b""):
            return False
        turns = [each.key for each in await self._bucket.list(layout.SYNC_TURNS)]
        ours = [each for each in turns if each.rpartition("/")[2].startswith(f"{key}-")]
        await self._bucket.delete([each for each in ours if not each.endswith(f"/{name}")])
        return True


@frozen
class SyncContext:
    """The collaborators of a ``SyncRunner``.

    :ivar rules: returns the rules in force; a reload changes them.
    :ivar registry: returns the registry of the mirror's own host, which a reload replaces.
    :ivar quota: returns an upstream's rate limit, by its name in the settings.
    :ivar claim_turn: see ``SyncTurns.claim``.
    :ivar draw: returns a random number from 0 to 1.
    """

    rules: Callable[[], Sequence[SyncRule]]
    registry: Callable[[], IRegistry]
    quota: Callable[[str], Quota | None]
    claim_turn: Callable[[str, int], Awaitable[bool]]
    draw: Callable[[], float]


class _Pause(Exception):
    """The run goes on later, since the upstream's rate limit is nearly used up."""


class SyncRunner(PeriodicTask):
    """Pulls the images that match a rule through the mirror's own registries, and pins them while they match.

    One process does it for all that share the cache.  A run that a stop interrupts begins again after the
    next start; the blobs that are held by then are not read again.
    """

    def __init__(self, root: Path, clock: IReactorTime, in_thread: RunInThread, context: SyncContext) -> None:
        super().__init__(self._check, POLL, clock, "cannot keep images in sync")
        self._root = root
        self._clock = clock
        self._in_thread = in_thread
        self._context = context
        self._states: dict[str, SyncState] = {}
        self._is_clean = False

    async def _check(self) -> None:
        try:
            await self._run_due()
        except OSError as error:
            _log.warn("cannot keep images in sync: {error}", error=error)

    async def _run_due(self) -> None:
        rules = self._context.rules()
        if not rules and self._is_clean:
            return
        if not await self._in_thread(partial(self._has_work, rules)):
            self._is_clean = not rules
            return
        lock = await self._in_thread(partial(sync_states.lock_sync, self._root))
        if lock is None:
            return
        try:
            await self._run_all(rules)
        finally:
            os.close(lock)

    def _has_work(self, rules: Sequence[SyncRule]) -> bool:
        """Return whether a rule is due, or one was removed; it blocks."""
        states = sync_states.read_states(self._root)
        if sync_states.is_requested(self._root) or states.keys() - {each.key for each in rules}:
            return True
        return any(self._is_due(states.get(rule.key)) for rule in rules if not rule.is_offline)

    def _is_due(self, state: SyncState | None) -> bool:
        return state is None or state.outcome == "running" or state.next_run <= self._clock.seconds()

    async def _run_all(self, rules: Sequence[SyncRule]) -> None:
        is_requested = await self._in_thread(partial(sync_states.end_request, self._root))
        self._states = await self._in_thread(partial(sync_states.read_states, self._root))
        online = [rule for rule in rules if not rule.is_offline]
        for rule in online:
            if is_requested or self._is_due(self._states.get(rule.key)):
                await self._run_rule(rule, is_requested)
        if all(self._states[rule.key].has_listed for rule in online):
            for key in self._states.keys() - {rule.key for rule in rules}:
                await self._unpin(key, ())
                del self._states[key]
                await self._in_thread(partial(sync_states.delete_state, self._root, key))

    async def _run_rule(self, rule: SyncRule, is_requested: bool) -> None:
        now = self._clock.seconds()
        last = self._states.get(rule.key) or SyncState(rule.key, rule.name)
        turn = int(now // rule.every)
        if not is_requested and last.turn != str(turn):
            try:
                has_turn = await self._context.claim_turn(rule.key, turn)
            except OSError as error:  # logged by the bucket
                await self._write(evolve(last, outcome="failed", message=str(error), next_run=now + RETRY))
                return
            if not has_turn:
                await self._leave_to_another(rule, last)
                return
        await self._write(
            SyncState(
                rule.key, rule.name, "running", started=now, turn=str(turn), has_listed=last.has_listed,
                pins=last.pins,
            )
        )  # fmt: skip
        await self._sync(rule)
        ended = self._states[rule.key]
        _log.info(
            "sync of {rule}: {outcome}, {synced} of {matched} images, {size} bytes fetched{message}",
            rule=rule.name, outcome=ended.outcome, synced=ended.synced, matched=ended.matched,
            size=ended.bytes, message=f": {ended.message}" if ended.message else "",
        )  # fmt: skip

    async def _leave_to_another(self, rule: SyncRule, last: SyncState) -> None:
        """Unpin what this mirror has pinned for the rule: the one that runs it pins it in its own cache."""
        delay = rule.delay(self._context.draw())
        message = "another mirror of the bucket runs it"
        await self._write(
            evolve(
                last, outcome="elsewhere", message=message, has_listed=True,
                next_run=self._clock.seconds() + delay,
            )
        )  # fmt: skip
        await self._unpin(rule.key, ())

    async def _sync(self, rule: SyncRule) -> None:
        """Run a rule to its end, and record the outcome."""
        key = rule.key
        try:
            images = await find_images(self._context.registry(), rule)
        except RegistryError as error:
            await self._end(key, "failed", error.summary, RETRY)
            return
        await self._write(evolve(self._states[key], matched=len(images), has_listed=True))
        try:
            for number, image in enumerate(images):
                await self._pull(rule, image, is_first=not number)
        except _Pause as pause:
            await self._end(key, "paused", str(pause), QUOTA_PAUSE)
            return
        await self._unpin(key, {str(image) for image in images})
        outcome: sync_states.Outcome = "failed" if self._states[key].failed else "done"
        await self._end(key, outcome, self._states[key].message, rule.delay(self._context.draw()))

    async def _end(self, key: str, outcome: sync_states.Outcome, message: str, delay: float) -> None:
        now = self._clock.seconds()
        ended = evolve(self._states[key], outcome=outcome, message=message, ended=now, next_run=now + delay)
        await self._write(ended)

    async def _pull(self, rule: SyncRule, image: Pin, is_first: bool) -> None:
        """Pull and pin an image.

        :raises _Pause: when the upstream's rate limit is nearly used up.
        """
        registry, pulled = self._context.registry(), PulledImage()
        wanted = Wanted(image.repository, image.reference, rule.platforms, rule.referrers, revalidate=True)
        error = ""
        try:
            if is_first and self._context.quota(rule.upstream) is not None:
                await self._ask_quota(registry, image)
            if is_quota_low(self._context.quota(rule.upstream)):
                raise _Pause(f"the rest of the rate limit of {rule.upstream} is left to clients")
            parts = await ImagePuller(registry, _JOBS).image(wanted, pulled)
            error = explain_missing(await HeldCheck(registry, self._clock, _JOBS).missing(parts)) or ""
        except TooManyRequests as refused:
            raise _Pause(refused.summary) from None
        except (RegistryError, OSError) as failure:
            error = summarize(failure)
        state = self._states[rule.key]
        state = evolve(state, fetched=state.fetched + pulled.fetched, bytes=state.bytes + pulled.bytes)
        if error:
            message = state.message or f"{image}: {error}"
            await self._write(evolve(state, failed=state.failed + 1, message=message))
            return
        await self._write(evolve(state, synced=state.synced + 1))
        await self._in_thread(partial(self._pin, rule.key, image))

    async def _ask_quota(self, registry: IRegistry, image: Pin) -> None:
        """Have the upstream tell what remains of its rate limit, which a HEAD request does not use up."""
        target = Manifest(image.repository, image.reference)
        request = RegistryRequest(target, head=True, accept=EVERYTHING, revalidate=True)
        (await registry.fetch(request)).body.discard()

    def _pin(self, key: str, image: Pin) -> None:
        """Pin an image for a rule, unless an operator has pinned it; it blocks."""
        state, name, now = self._states[key], str(image), self._clock.seconds()
        existing = pins.find_pin(self._root, image)
        if existing is not None and not sync_states.is_pinned_by_rule(name, self._states.values()):
            return
        others = [each for each in self._states.values() if each.key != key]
        owned = (*(each for each in state.pins if str(each) != name), image)
        state = self._states[key] = evolve(state, pins=owned)
        sync_states.write_state(self._root, state, now)  # first, so that no pin is without an owner
        merged = sync_states.merge_platforms(image, others)
        if existing != merged:
            pins.add_pin(self._root, merged)
        if merged == image:
            pins.mark_refreshed(self._root, merged, now)

    async def _unpin(self, key: str, wanted: Collection[str]) -> None:
        """Unpin what no rule wants any longer."""
        state = self._states[key]
        others = [each for each in self._states.values() if each.key != key]
        kept = tuple(pin for pin in state.pins if str(pin) in wanted)
        unwanted = sync_states.plan_unpins(state, wanted, others)

        def unpin() -> None:
            for pin in unwanted:
                pins.remove_pin(self._root, pin)

        await self._in_thread(unpin)
        await self._write(evolve(state, pins=kept))
        for pin in unwanted:
            _log.info("sync: {image} does not match any longer, and is unpinned", image=str(pin))

    async def _write(self, state: SyncState) -> None:
        self._states[state.key] = state
        await self._in_thread(partial(sync_states.write_state, self._root, state, self._clock.seconds()))
