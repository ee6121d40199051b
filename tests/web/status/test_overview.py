"""The status of the mirror, collected for the page."""

from __future__ import annotations

from twisted.internet.task import Clock

from dockmirror.status.status_values import CacheUsage, WorkerState
from dockmirror.web.readiness import ReadinessState
from dockmirror.web.shared_tables import SharedTables
from dockmirror.web.status.overview import StatusOverview
from tests.stacks import now


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


def test_the_check_of_the_store_is_reused_for_ten_seconds() -> None:
    """The state of the workers is always new."""
    clock = Clock()
    overview = StatusOverview(CountedSource(), SharedTables.create(), clock)
    for second in range(10):
        status = now(overview.status())
        assert (status.now, status.worker_state.cache) == (second, CacheUsage(second + 1, 100))
        assert status.state.store == "1"
        clock.advance(1)
    assert now(overview.status()).state.store == "2"
    clock.rightNow = 3.0
    assert now(overview.status()).state.store == "3"
