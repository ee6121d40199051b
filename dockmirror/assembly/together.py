"""What is told of several processes, as of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from ..status.together import together
from ..status.values import Noted
from ..web.readiness import State
from ..workers.line import Refused
from ..workers.merged import counted, exposed, merged


class Asked(Protocol):
    """Processes that can be asked; see ``Group``."""

    ending: bool
    departed: Callable[[int], None]

    async def ask(self, name: str, value: object = None) -> dict[int, Any]:
        """What they answer."""


class Together:
    """Asks all of them when it is asked; what one counted that is gone goes on to count.

    :param group: the processes.
    """

    def __init__(self, group: Asked) -> None:
        group.departed = self._departed
        self._group = group
        self._seen: dict[int, str] = {}
        self._gone: list[Metric] = []

    async def metrics(self) -> bytes:
        """In the text format of Prometheus."""
        answers = await self._ask("metrics")
        self._seen.update(answers)
        families = merged([exposed(self._gone).decode(), *answers.values()])
        here = GaugeMetricFamily("dockmirror_workers", "Processes that serve.", len(answers))
        return exposed([*families, here])

    async def state(self) -> State:
        """How they are: ready while one of them is, and as the worst of those is."""
        states = [State(**answer) for answer in (await self._ask("state")).values()]
        if self._group.ending:
            return State(False, "stopping", _store(states))
        ready = [each for each in states if each.ready]
        if not ready:
            return State(False, "not listening", _store(states))
        degraded = any(each.status == "degraded" for each in ready)
        return State(True, "degraded" if degraded else "ready", _store(ready))

    async def noted(self) -> Noted:
        """What they have noted."""
        return together([Noted.from_json(each) for each in (await self._ask("noted")).values()])

    def _departed(self, number: int) -> None:
        """What a process had counted when it was last asked is kept when it is gone."""
        if number in self._seen:
            self._gone = counted(merged([exposed(self._gone).decode(), self._seen.pop(number)]))

    async def _ask(self, name: str) -> dict[int, Any]:
        try:
            return await self._group.ask(name)
        except Refused:
            return {}


def _store(states: Sequence[State]) -> str:
    """Of several the one that has something to complain about."""
    told = [each.store for each in states]
    return next((each for each in told if each not in ("writable", "none")), told[0] if told else "none")
