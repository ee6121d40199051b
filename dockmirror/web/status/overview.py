"""The status of the mirror, of all of its processes together, and the wording of budgets in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ...concurrency.coroutines import RunInThread, SingleFlight
from ...config.notation import format_size
from ...history.fleet import FleetMirror, FleetSums
from ...history.pulls import HistoryError, HistoryReader, Pull, PullFilter, PullSums, add_sums
from ...status import BudgetStatus, NetworkShare, WorkerState
from ...store.sync_states import SyncState
from ..pages.page import Language, format_age
from ..readiness import ReadinessState

DAY, WEEK = 86_400, 7 * 86_400
HOURS, DAYS, WEEKS = 24, 30, 26
"""Bars of the charts."""
_TTL = 10.0
"""Seconds for which sums are reused; the running pulls are read anew each time."""
_MOST_RUNNING = 30
_MOST_NAMES = 10
_RULES_TTL = 2.0
"""Seconds for which the states of rules are reused."""
FLEET_PERIOD = 60.0
"""Seconds after which the sums of the fleet are read again."""
_STATE_TTL = 10.0
"""Seconds for which the result of a store check is reused: the page is refreshed every second."""
NETWORK_COLUMNS = ("network", "pulls", "requests", "sent", "limit_share", "window_left")


@frozen
class FleetSummary:
    """The mirrors that share a bucket.

    :ivar week: the sums of the last seven days by mirror.
    :ivar error: a sentence that says why the bucket could not be read the last time.
    """

    mirrors: Sequence[FleetMirror] = ()
    week: Sequence[PullSums] = ()
    error: str = ""


@frozen
class HistorySummary:
    """The figures of the history.

    :ivar week: the sums of the last seven days by registry; ``clients`` and ``images`` are the largest ones.
    :ivar running: the pulls under way, newest first.
    :ivar error: a sentence that says why the history cannot be read; empty if it can.
    :ivar fleet: None if there is no bucket.
    """

    week: Sequence[PullSums] = ()
    clients: Sequence[PullSums] = ()
    images: Sequence[PullSums] = ()
    hours: Sequence[PullSums] = ()
    days: Sequence[PullSums] = ()
    running: Sequence[Pull] = ()
    error: str = ""
    fleet: FleetSummary | None = None

    @property
    def total(self) -> PullSums:
        """The sums of the last seven days."""
        return add_sums("", self.week)


class FleetSource:
    """Reads the sums of the fleet once a minute while somebody looks at them; nobody waits for the bucket.

    :param read: returns the sums since a time; it blocks.
    """

    def __init__(
        self, read: Callable[[float], FleetSums], in_thread: RunInThread, clock: IReactorTime
    ) -> None:
        self._read = read
        self._in_thread = in_thread
        self._clock = clock
        self._summary = FleetSummary()
        self._started: float | None = None
        self._is_reading = False

    def summary(self) -> FleetSummary:
        """Return what was read last."""
        now = self._clock.seconds()
        is_due = self._started is None or not 0 <= now - self._started < FLEET_PERIOD
        if is_due and not self._is_reading:
            self._started, self._is_reading = now, True
            Deferred.fromCoroutine(self._refresh(now))
        return self._summary

    async def _refresh(self, now: float) -> None:
        try:
            sums = await self._in_thread(partial(self._read, now - WEEK))
            self._summary = FleetSummary(sums.mirrors(), sums.sums("mirror", PullFilter(since=now - WEEK)))
        except HistoryError as error:
            self._summary = evolve(self._summary, error=str(error))
        finally:
            self._is_reading = False


class HistorySource:
    """Reads the summary in threads; all viewers share what was read.

    :param fleet: None if the mirror shares no bucket.
    """

    def __init__(
        self,
        reader: HistoryReader,
        in_thread: RunInThread,
        clock: IReactorTime,
        fleet: FleetSource | None = None,
    ) -> None:
        self._fleet = fleet
        self._reader = reader
        self._in_thread = in_thread
        self._clock = clock
        self._flights: SingleFlight[None, HistorySummary] = SingleFlight()
        self._sums: tuple[float, HistorySummary] | None = None

    async def summary(self) -> HistorySummary:
        summary = await self._flights.get(None, self._read)
        return evolve(summary, fleet=self._fleet.summary()) if self._fleet else summary

    async def _read(self) -> HistorySummary:
        now = self._clock.seconds()
        running = PullFilter(outcome="running")
        try:
            if self._sums is None or not 0 <= now - self._sums[0] < _TTL:
                self._sums = now, await self._in_thread(partial(_read_sums, self._reader, now))
            pulls = await self._in_thread(partial(self._reader.pulls, running, _MOST_RUNNING))
        except HistoryError as error:
            return HistorySummary(error=str(error))
        return evolve(self._sums[1], running=pulls)


def _read_sums(reader: HistoryReader, now: float) -> HistorySummary:
    week = PullFilter(since=now - WEEK)
    return HistorySummary(
        reader.sums("registry", week),
        reader.sums("client", week, _MOST_NAMES),
        reader.sums("repository", week, _MOST_NAMES),
        reader.sums("hour", PullFilter(since=now - HOURS * 3600)),
        reader.sums("day", PullFilter(since=now - WEEKS * WEEK)),
    )


@frozen
class RuleStates:
    """The states of the rules about images that are in force, in the order of the settings.

    :ivar sync: of those that keep images in sync.
    :ivar budgets: of those that limit what client networks may use.
    """

    sync: Sequence[SyncState] = ()
    budgets: Sequence[BudgetStatus] = ()


class RuleSource:
    """Reads the states of rules; all viewers share what was read.

    :param read: returns the states; it blocks.
    """

    def __init__(self, read: Callable[[], RuleStates], in_thread: RunInThread, clock: IReactorTime) -> None:
        self._read = read
        self._in_thread = in_thread
        self._clock = clock
        self._flights: SingleFlight[None, RuleStates] = SingleFlight()
        self._states: tuple[float, RuleStates] | None = None

    async def states(self) -> RuleStates:
        return await self._flights.get(None, self._refresh)

    async def _refresh(self) -> RuleStates:
        now = self._clock.seconds()
        if self._states is None or not 0 <= now - self._states[0] < _RULES_TTL:
            self._states = now, await self._in_thread(self._read)
        return self._states[1]


@frozen
class Status:
    """Everything that the status page shows.

    :ivar now: in seconds since the epoch.
    :ivar history: None if the mirror keeps no history.
    :ivar started: when the mirror started.
    :ivar sync: see ``RuleStates``, as for ``budgets``.
    """

    now: float
    state: ReadinessState
    worker_state: WorkerState
    history: HistorySummary | None
    version: str
    started: float
    sync: Sequence[SyncState] = ()
    budgets: Sequence[BudgetStatus] = ()


class StatusSource(Protocol):
    """The state of the mirror, from one process or several."""

    async def state(self) -> ReadinessState: ...

    async def worker_state(self) -> WorkerState: ...


class StatusOverview:
    """Collects the status from the processes, the history, and the rules about images."""

    def __init__(
        self,
        source: StatusSource,
        history: HistorySource | None,
        version: str,
        started: float,
        clock: IReactorTime,
        rules: RuleSource | None = None,
    ) -> None:
        self._source = source
        self._rules = rules
        self._history = history
        self._version = version
        self._clock = clock
        self._started = started
        self._state: tuple[float, ReadinessState] | None = None

    async def status(self) -> Status:
        rules = await self._rules.states() if self._rules else RuleStates()
        return Status(
            self._clock.seconds(),
            await self._readiness(),
            await self._source.worker_state(),
            await self._history.summary() if self._history else None,
            self._version,
            self._started,
            rules.sync,
            rules.budgets,
        )

    async def _readiness(self) -> ReadinessState:
        now = self._clock.seconds()
        if self._state is None or not 0 <= now - self._state[0] < _STATE_TTL:
            self._state = now, await self._source.state()
        return self._state[1]


def describe_limits(budget: BudgetStatus, say: Language) -> str:
    """Say what a client network may use in a window."""
    amounts = [
        *([say("status.budgets.pulls", count=f"{budget.pulls:,}")] if budget.pulls is not None else []),
        *(
            [say("status.budgets.requests", count=f"{budget.requests:,}")]
            if budget.requests is not None
            else []
        ),
        *([format_size(budget.bytes)] if budget.bytes is not None else []),
    ]
    limits = say("status.comma").join(amounts) or say("status.budgets.unlimited")
    return say(f"status.budgets.{budget.each}", limits=limits, window=format_age(budget.window, say))


def describe_use(budget: BudgetStatus, say: Language) -> str:
    """Say how many client networks have used some and all of it, and how many requests were refused."""
    counts = {"networks": budget.networks, "used_up": budget.used_up, "refused": budget.refused}
    return say("status.budgets.use", **{name: f"{count:,}" for name, count in counts.items()})


def network_rows(networks: Iterable[NetworkShare], now: float, say: Language) -> Iterator[list[str]]:
    """Return the cells of each client network; see ``NETWORK_COLUMNS``."""
    for each in networks:
        left = format_age(max(0.0, each.ends - now), say)
        counts = f"{each.pulls:,}", f"{each.requests:,}", format_size(each.bytes)
        yield [each.client or say("status.unnamed"), *counts, f"{100 * each.share:.0f} %", left]
