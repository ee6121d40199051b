"""Runs the rules that keep images in sync with their upstreams."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from pathlib import Path

from attrs import evolve, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..concurrency.coroutines import RunInThread
from ..concurrency.periodic_task import PeriodicTask
from ..interfaces import IRegistry
from ..oci.errors import RegistryError, TooManyRequests, summarize_error
from ..oci.media import EVERYTHING
from ..oci.request import Manifest, RegistryRequest, Repository
from ..pull import ImagePuller, PulledImage, Wanted
from ..status import Quota
from ..store import files, layout, pins, sync_states
from ..store.pins import Pin
from ..store.sync_states import SyncState
from .sync_rules import LEASE, RENEWAL, SyncRule, SyncTurn, SyncTurns, find_images, state_of

POLL = 10.0
"""Seconds between two checks for rules that are due."""
RETRY = 900.0
"""Seconds after which a rule is run again whose run could not be completed."""
QUOTA_PAUSE = 3600.0
"""Seconds after which a rule goes on that has paused for the upstream's rate limit."""
LOOK = 300.0
"""Seconds between two looks at the run of another mirror that shares the bucket."""
PROGRESS = 10.0
"""Seconds between two writes of a run's progress while it pins nothing new."""
QUOTA_SHARE = 0.2
"""The share of an upstream's rate limit that is left to clients."""
_BLOBS_AT_ONCE = 2
_log = Logger()


def is_quota_low(quota: Quota | None) -> bool:
    """Return whether the rest of an upstream's rate limit is left to clients."""
    if quota is None or quota.remaining is None:
        return False
    return quota.remaining <= QUOTA_SHARE * (quota.limit or 0)


@frozen
class SyncContext:
    """The collaborators of a ``SyncRunner``.

    :ivar rules: returns the rules in force; a reload changes them.
    :ivar registry: returns the registry of the mirror's own host, which a reload replaces.
    :ivar account_of: returns the name of the mirror's account for a repository, whose name begins with the
        registry, at the upstream of a rule.
    :ivar quota: returns the rate limit of an upstream for an account, by their names in the settings.
    :ivar turns: gives the turn to run a rule to one of the mirrors that share a bucket.
    :ivar draw: returns a random number from 0 to 1.
    """

    rules: Callable[[], Sequence[SyncRule]]
    registry: Callable[[], IRegistry]
    account_of: Callable[[SyncRule, Repository], str]
    quota: Callable[[str, str], Quota | None]
    turns: SyncTurns
    draw: Callable[[], float]


class _Pause(Exception):
    """The run goes on later, since the upstream's rate limit is nearly used up."""


class SyncRunner(PeriodicTask):
    """Pulls the images that match a rule through the mirror's own registries, and pins them while they match.

    One process does it for all that share the cache.  A run that a stop interrupts begins again after the
    next start; the blobs that are held by then are not read again.
    """

    def __init__(self, root: Path, clock: IReactorTime, in_thread: RunInThread, context: SyncContext) -> None:
        super().__init__(self._run_due, POLL, clock, "cannot keep images in sync")
        self._root = root
        self._clock = clock
        self._in_thread = in_thread
        self._context = context
        self._states: dict[str, SyncState] = {}
        self._written = 0.0
        self._idle: _Idle | None = None

    async def _run_due(self) -> None:
        rules, now = tuple(self._context.rules()), self._clock.seconds()
        idle = _Idle(rules, self._versions(), now)
        if self._idle == idle and self._idle.since <= now < self._idle.until:
            return
        until = await self._in_thread(partial(self._find_next_run, rules, now))
        if now < until:
            self._idle = evolve(idle, until=until)
            return
        lock = await self._in_thread(partial(sync_states.lock_sync, self._root))
        if lock is None:
            return
        try:
            await self._run_all(rules)
        except Exception:  # perhaps no state records it
            self._idle = _Idle(rules, self._versions(), now, self._clock.seconds() + RETRY)
            raise
        finally:
            os.close(lock)

    def _versions(self) -> tuple[files.Version | None, ...]:
        """Return the versions of the states and of a request; no thread is needed for that."""
        return tuple(files.file_version(self._root / each) for each in (layout.SYNC, layout.SYNC_REQUEST))

    def _find_next_run(self, rules: Sequence[SyncRule], now: float) -> float:
        """Return when a rule is due, which is 0 if pins are left of one or all are requested; it blocks."""
        states = sync_states.read_states(self._root)
        if sync_states.is_requested(self._root) or _find_removed(rules, states):
            return 0.0
        online = (rule for rule in rules if not rule.is_offline)
        return min((_next_run(rule, states.get(rule.key), now) for rule in online), default=inf)

    async def _run_all(self, rules: Sequence[SyncRule]) -> None:
        self._states = await self._in_thread(partial(sync_states.read_states, self._root))
        online = [rule for rule in rules if not rule.is_offline]
        if await self._in_thread(partial(sync_states.is_requested, self._root)):
            for rule in online:
                await self._write(sync_states.request_run(state_of(rule, self._states)))
            await self._in_thread(partial(sync_states.end_request, self._root))
        for rule in online:
            await self._run_if_due(rule)
        for key in _find_removed(rules, self._states):
            await self._unpin(key, ())
            await self._context.turns.delete(key, await self._read_owner())
            del self._states[key]
            await self._in_thread(partial(sync_states.delete_state, self._root, key))

    async def _run_if_due(self, rule: SyncRule) -> None:
        state, now = self._states.get(rule.key), self._clock.seconds()
        if state is None and not rule.schedule.starts_at_once:
            await self._write(SyncState(rule.key, rule.name, next_run=self._next_time(rule)))
        elif _next_run(rule, state, now) <= now:
            try:
                if state is not None and state.is_run_requested:
                    await self._run_rule(rule, None)
                else:
                    await self._run_turn(rule)
            except (RegistryError, OSError) as error:
                await self._end(rule, "failed", summarize_error(error), self._clock.seconds() + RETRY)

    def _next_time(self, rule: SyncRule) -> float:
        return rule.schedule.next_run(self._clock.seconds(), self._context.draw())

    async def _read_owner(self) -> str:
        return await self._in_thread(partial(sync_states.read_owner, self._root, self._clock.seconds()))

    async def _run_turn(self, rule: SyncRule) -> None:
        """Run a rule if it is this mirror's turn.

        :raises RegistryError: like ``_run_rule``.
        :raises OSError: like that, or when the bucket fails.
        """
        now = self._clock.seconds()
        last = state_of(rule, self._states)
        owner = await self._read_owner()
        turn = await self._context.turns.claim(rule.key, rule.schedule.period(now), owner)
        if turn.owner == owner:
            await self._run_rule(rule, turn)
        else:
            await self._leave_to_another(rule, last, turn.images)

    async def _leave_to_another(
        self, rule: SyncRule, last: SyncState, images: Collection[str] | None
    ) -> None:
        """Keep the pins while another mirror runs the rule; then unpin what does not match any longer."""
        if images is None:
            message = "another mirror of the bucket runs it"
            next_look = self._clock.seconds() + LOOK
            await self._write(evolve(last, outcome="elsewhere", message=message, next_run=next_look))
            return
        message = "another mirror of the bucket has run it"
        next_run = self._next_time(rule)
        await self._write(
            evolve(last, outcome="elsewhere", message=message, has_listed=True, next_run=next_run)
        )
        await self._unpin(rule.key, images)

    async def _run_rule(self, rule: SyncRule, turn: SyncTurn | None) -> None:
        """Run a rule to its end or a pause, and record the outcome.

        :param turn: the mirror's turn; None if an operator has asked for the run.
        :raises RegistryError: when no tags can be listed.
        :raises OSError: when the pins or the state cannot be changed.
        """
        last = state_of(rule, self._states)
        await self._write(
            SyncState(
                rule.key, rule.name, "running", started=self._clock.seconds(), is_requested=turn is None,
                has_listed=last.has_listed, pins=last.pins,
            )
        )  # fmt: skip
        try:
            await self._sync(rule, turn)
        except _Pause as pause:
            await self._end(rule, "paused", str(pause), self._clock.seconds() + QUOTA_PAUSE)
            if turn is not None:
                await self._context.turns.extend(turn, self._clock.seconds() + QUOTA_PAUSE + LEASE)

    async def _sync(self, rule: SyncRule, turn: SyncTurn | None) -> None:
        """Pull and pin what matches, and unpin the rest; it fails like ``_run_rule``.

        :raises _Pause: when the upstream's rate limit is nearly used up.
        """
        found = await find_images(self._context.registry(), rule)
        images = found.pins
        state = self._states[rule.key]
        await self._write(evolve(state, matched=len(images), has_listed=True, message=found.problem))
        accounts: set[str] = set()
        for image in images:
            now = self._clock.seconds()
            if turn is not None and turn.until - now < LEASE - RENEWAL:
                turn = await self._context.turns.extend(turn, now + LEASE)
            account = self._context.account_of(rule, image.repository)
            if account not in accounts and self._context.quota(rule.upstream, account) is not None:
                await self._ask_quota(image)
            accounts.add(account)
            await self._pull(rule, image, account, found.artifact_tags[image.repository])
        names = set(map(str, found.complete(self._states[rule.key].pins)))
        await self._unpin(rule.key, names)
        ended = self._states[rule.key]
        outcome: sync_states.Outcome = "failed" if ended.failed or found.problem else "done"
        await self._end(rule, outcome, ended.message, self._next_time(rule))
        if turn is not None:
            period = rule.schedule.period(self._clock.seconds())
            await self._context.turns.complete(turn, sorted(names), period)

    async def _end(self, rule: SyncRule, outcome: sync_states.Outcome, message: str, next_run: float) -> None:
        now = self._clock.seconds()
        last = state_of(rule, self._states)
        ended = evolve(last, outcome=outcome, message=message, ended=now, next_run=next_run)
        await self._write(ended)
        _log.info(
            "sync of {rule}: {outcome}, {synced} of {matched} images, {size} bytes fetched{message}",
            rule=rule.name, outcome=outcome, synced=ended.synced, matched=ended.matched,
            size=ended.bytes, message=f": {message}" if message else "",
        )  # fmt: skip

    async def _pull(self, rule: SyncRule, image: Pin, account: str, tags: Collection[str]) -> None:
        """Pull and pin an image.

        :param account: the name of the mirror's account for its repository.
        :param tags: the tags of artifacts in the repository.
        :raises _Pause: when the upstream's rate limit is nearly used up.
        """
        pulled, error = PulledImage(), ""
        wanted = Wanted(
            image.repository, image.reference, rule.platforms, rule.referrers, revalidate=True, tags=tags
        )
        try:
            if is_quota_low(self._context.quota(rule.upstream, account)):
                whose = f"{rule.upstream}, account {account}," if account else rule.upstream
                raise _Pause(f"the rest of the rate limit of {whose} is left to clients")
            puller = ImagePuller(self._context.registry(), _BLOBS_AT_ONCE, note=_log_note)
            await puller.into_cache(wanted, pulled, self._clock)
        except TooManyRequests as refused:
            raise _Pause(refused.summary) from None
        except (RegistryError, OSError) as failure:
            error = summarize_error(failure)
        state = self._states[rule.key]
        state = evolve(state, fetched=state.fetched + pulled.fetched, bytes=state.bytes + pulled.bytes)
        if error:
            state = evolve(state, failed=state.failed + 1, message=state.message or f"{image}: {error}")
            await self._in_thread(partial(self._record, state))
        else:
            state = evolve(state, synced=state.synced + 1)
            await self._in_thread(partial(self._pin, state, image))

    async def _ask_quota(self, image: Pin) -> None:
        """Have the upstream tell what remains of its rate limit, which a HEAD request does not use up."""
        target = Manifest(image.repository, image.reference)
        request = RegistryRequest(target, head=True, accept=EVERYTHING, revalidate=True)
        with suppress(RegistryError):  # the pull that follows reports it
            (await self._context.registry().fetch(request)).body.discard()

    def _pin(self, state: SyncState, image: Pin) -> None:
        """Record that an image was pulled, and pin it unless an operator has; it blocks."""
        name, now = str(image), self._clock.seconds()
        existing = pins.find_pin(self._root, image)
        if existing is not None and not sync_states.is_pinned_by_rule(name, self._states.values()):
            self._record(state)
            return
        if image not in state.pins:
            state = evolve(state, pins=(*(each for each in state.pins if str(each) != name), image))
        self._record(state)  # first, so that no pin is without an owner
        others = [each for each in self._states.values() if each.key != state.key]
        merged = sync_states.merge_platforms(image, others)
        if existing != merged:
            pins.add_pin(self._root, merged)
        if merged == image:
            pins.mark_refreshed(self._root, merged, now)

    def _record(self, state: SyncState) -> None:
        """Write the progress of a run, at once if the pins differ and otherwise now and then; it blocks."""
        is_pinning = state.pins != self._states[state.key].pins
        self._states[state.key] = state
        now = self._clock.seconds()
        if is_pinning or not 0 <= now - self._written < PROGRESS:
            sync_states.write_state(self._root, state, now)
            self._written = now

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
        self._written = self._clock.seconds()
        await self._in_thread(partial(sync_states.write_state, self._root, state, self._written))


@frozen
class _Idle:
    """The rules and the files as they were when no rule was due, or when a run could not be recorded.

    :ivar since: when that was; the clock may have been set back since.
    :ivar until: when one is due, or run again.
    """

    rules: tuple[SyncRule, ...]
    versions: tuple[files.Version | None, ...]
    since: float = field(eq=False)
    until: float = field(default=0.0, eq=False)


def _log_note(note: str) -> None:
    _log.info("sync: {note}", note=note)


def _find_removed(rules: Sequence[SyncRule], states: Mapping[str, SyncState]) -> set[str]:
    """Return the keys of rules that were removed, once each rule in force has listed its tags."""
    online = (states.get(rule.key) for rule in rules if not rule.is_offline)
    has_listed = all(state is not None and state.has_listed for state in online)
    return states.keys() - {rule.key for rule in rules} if has_listed else set()


def _next_run(rule: SyncRule, state: SyncState | None, now: float) -> float:
    """Return when a rule is due.

    That is 0 if it has never run, was interrupted, or is due so late that the clock must have been wrong.
    """
    if state is None or state.outcome == "running":
        return 0.0
    latest = max(rule.schedule.next_run(now, 1.0), now + QUOTA_PAUSE)
    return state.next_run if state.next_run <= latest else 0.0
