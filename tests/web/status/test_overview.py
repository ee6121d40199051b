"""The status of the mirror, collected for the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dockmirror.history.fleet import FleetDay, FleetSums
from dockmirror.history.pulls import HistoryError, Pull, PullFilter, PullSums, SumKey, add_sums
from dockmirror.status import BudgetStatus, CacheUsage, WorkerState
from dockmirror.store.sync_states import SyncState
from dockmirror.web.readiness import ReadinessState
from dockmirror.web.status.overview import (
    FleetSource,
    FleetSummary,
    HistorySource,
    HistorySummary,
    RuleSource,
    RuleStates,
    StatusOverview,
)
from tests.stacks import now
from tests.store.threads import inline

DAY = 86_400
T = TypeVar("T")


class CountedSource:
    """A source whose values are the numbers of its calls."""

    def __init__(self) -> None:
        self.states = self.worker_states = 0

    async def state(self) -> ReadinessState:
        self.states += 1
        return ReadinessState(True, "ready", f"{self.states}")

    async def worker_state(self) -> WorkerState:
        self.worker_states += 1
        return WorkerState(cache=CacheUsage(self.worker_states, 100))


class CountedHistory:
    """A history whose sums are the numbers of the calls, or which fails."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []
        self.running = 0
        self.error = ""

    def pulls(self, filter: PullFilter, limit: int = 100, after: int = 0) -> Sequence[Pull]:
        assert filter == PullFilter(outcome="running")
        self.running += 1
        return []

    def sums(self, by: SumKey, filter: PullFilter, limit: int = 1000) -> Sequence[PullSums]:
        if self.error:
            raise HistoryError(self.error)
        self.asked.append((by, filter.since))
        return [PullSums(by, len(self.asked), 0, 1, 2, 0, 0, 0.5, 0.0)]


def test_the_check_of_the_store_is_reused_for_ten_seconds() -> None:
    """The state of the workers is always new."""
    clock = Clock()
    overview = StatusOverview(CountedSource(), None, "1.2", 0.0, clock)
    for second in range(10):
        status = now(overview.status())
        assert (status.now, status.worker_state.cache) == (second, CacheUsage(second + 1, 100))
        assert (status.state.store, status.history, status.version, status.started) == ("1", None, "1.2", 0)
        clock.advance(1)
    assert now(overview.status()).state.store == "2"
    clock.rightNow = 3.0
    assert now(overview.status()).state.store == "3"


def test_the_states_of_rules_are_reused_for_two_seconds() -> None:
    clock, reads = Clock(), list[SyncState]()

    def read() -> RuleStates:
        reads.append(SyncState(f"{len(reads)}", "docker: nginx"))
        return RuleStates(reads[-1:], [BudgetStatus(reads[-1].key, "image", 1, None, None, 60.0)])

    source = RuleSource(read, inline, clock)
    overview = StatusOverview(CountedSource(), None, "1.2", 0.0, clock, source)
    for second in range(4):
        status = now(overview.status())
        assert [each.key for each in status.sync] == [f"{second // 2}"]
        assert [each.images for each in status.budgets] == [f"{second // 2}"]
        clock.advance(1)


def test_sums_are_reused_for_ten_seconds_and_running_pulls_are_read_each_time() -> None:
    """The names are those of a week, the charts those of a day and of half a year."""
    clock, history = Clock(), CountedHistory()
    clock.advance(1000 * DAY)
    source = HistorySource(history, inline, clock)
    first = now(source.summary())
    assert first.total == add_sums("", first.week)
    assert [(by, 1000 - since / DAY) for by, since in history.asked] == [
        ("registry", 7), ("client", 7), ("repository", 7), ("hour", 1), ("day", 182),
    ]  # fmt: skip
    clock.advance(9)
    assert now(source.summary()) == first
    assert (len(history.asked), history.running) == (5, 2)
    clock.advance(1)
    now(source.summary())
    assert len(history.asked) == 10


def test_a_history_that_fails_is_read_again() -> None:
    clock, history = Clock(), CountedHistory()
    source = HistorySource(history, inline, clock)
    history.error = "it is broken"
    assert now(source.summary()) == HistorySummary(error="it is broken")
    history.error = ""
    assert now(source.summary()).error == ""


class CountedFleet:
    """Sums whose mirror is the number of the call, or which cannot be read."""

    def __init__(self) -> None:
        self.calls: list[float] = []
        self.error = ""

    def __call__(self, since: float) -> FleetSums:
        self.calls.append(since)
        if self.error:
            raise HistoryError(self.error)
        rows = {"hour": [(1000 * 24, 1, *[0] * 7)]}
        return FleetSums([FleetDay(1000, f"{len(self.calls)}", "1.0", since, rows)])


def test_the_fleet_is_read_once_a_minute_and_nobody_waits_for_it() -> None:
    """The last sums stay when the bucket fails."""
    clock, fleet, waiting = Clock(), CountedFleet(), Deferred[None]()
    clock.advance(1000 * DAY)

    async def slow(call: Callable[[], T], /) -> T:
        await waiting
        return call()

    source = HistorySource(CountedHistory(), inline, clock, FleetSource(fleet, slow, clock))
    assert now(source.summary()).fleet == FleetSummary()
    clock.advance(600)
    assert now(source.summary()).fleet == FleetSummary()
    waiting.callback(None)
    summary = now(source.summary()).fleet
    assert summary is not None
    assert ([each.name for each in summary.mirrors], [each.key for each in summary.week]) == (["2"], ["2"])
    assert fleet.calls == [993 * DAY, 993 * DAY + 600]
    fleet.error = "the bucket fails"
    clock.advance(60)
    for _ in range(3):
        failed = now(source.summary()).fleet
    assert failed == evolve(summary, error="the bucket fails")
    clock.advance(60)
    fleet.error = ""
    now(source.summary())
    recovered = now(source.summary()).fleet
    assert recovered is not None
    assert ([each.name for each in recovered.mirrors], recovered.error) == (["4"], "")


def test_sums_are_added_column_by_column() -> None:
    one = PullSums("a", 1, 2, 3, 4, 5, 6, 7.0, 8.0)
    assert add_sums("b", [one, one]) == PullSums("b", 2, 4, 6, 8, 10, 12, 14.0, 16.0)
    assert add_sums("b", []) == PullSums("b", 0, 0, 0, 0, 0, 0, 0.0, 0.0)
