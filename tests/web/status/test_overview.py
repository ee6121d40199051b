"""The mirror at a glance."""

from __future__ import annotations

from twisted.internet.task import Clock

from dockmirror.status.values import Held, Noted
from dockmirror.web.memory import Memory
from dockmirror.web.readiness import State
from dockmirror.web.status.overview import Overview
from tests.stacks import now


class Telling:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.states = self.noting = 0

    async def state(self) -> State:
        """Another one each time."""
        self.states += 1
        return State(True, "ready", f"{self.states}")

    async def noted(self) -> Noted:
        """More each time."""
        self.noting += 1
        return Noted(cache=Held(self.noting, 100))


def test_who_looks_often() -> None:
    """Sees what is new each time; whether the store can be written is not tried for each look."""
    clock, telling = Clock(), Telling()
    overview = Overview(telling, Memory.alone(), clock)
    for look in range(10):
        status = now(overview.status())
        assert (status.now, status.noted.cache) == (look, Held(look + 1, 100))
        assert status.state.store == "1"
        clock.advance(1)
    assert now(overview.status()).state.store == "2"
    clock.rightNow = 3.0
    assert now(overview.status()).state.store == "3"
