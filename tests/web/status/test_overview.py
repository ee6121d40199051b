"""The mirror at a glance."""

from __future__ import annotations

from twisted.internet.task import Clock

from dockmirror.status.status_values import CacheUsage, WorkerState
from dockmirror.web.shared_tables import SharedTables
from dockmirror.web.status.overview import ReadinessState, StatusOverview
from tests.stacks import now


class Telling:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.states = self.noting = 0

    async def state(self) -> ReadinessState:
        """Another one each time."""
        self.states += 1
        return ReadinessState(True, "ready", f"{self.states}")

    async def worker_state(self) -> WorkerState:
        """More each time."""
        self.noting += 1
        return WorkerState(cache=CacheUsage(self.noting, 100))


def test_who_looks_often() -> None:
    """Sees what is new each time; whether the store can be written is not tried for each look."""
    clock, telling = Clock(), Telling()
    overview = StatusOverview(telling, SharedTables.create(), clock)
    for look in range(10):
        status = now(overview.status())
        assert (status.now, status.worker_state.cache) == (look, CacheUsage(look + 1, 100))
        assert status.state.store == "1"
        clock.advance(1)
    assert now(overview.status()).state.store == "2"
    clock.rightNow = 3.0
    assert now(overview.status()).state.store == "3"
