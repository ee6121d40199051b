"""What is told of several processes, as of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from ..status.status_values import WorkerState
from ..status.worker_status import merge_states
from ..web.readiness import ReadinessState
from ..workers.merge_metrics import counted, exposed, merge_metrics
from ..workers.rpc_channel import RpcError


class IWorkerPool(Protocol):
    """Processes that can be asked; see ``WorkerPool``."""

    ending: bool
    departed: Callable[[int], None]

    async def ask(self, name: str, value: object = None) -> dict[int, Any]:
        """What they answer."""


class PoolTelemetry:
    """Asks all of them when it is asked; what one counted that is gone goes on to count.

    :param group: the processes.
    """

    def __init__(self, group: IWorkerPool) -> None:
        group.departed = self._departed
        self._group = group
        self._seen: dict[int, str] = {}
        self._gone: list[Metric] = []

    async def metrics(self) -> bytes:
        """In the text format of Prometheus."""
        answers = await self._ask("metrics")
        self._seen.update(answers)
        families = merge_metrics([exposed(self._gone).decode(), *answers.values()])
        here = GaugeMetricFamily("dockmirror_workers", "Processes that serve.", len(answers))
        return exposed([*families, here])

    async def state(self) -> ReadinessState:
        """How they are: ready while one of them is, and as the worst of those is."""
        states = [ReadinessState(**answer) for answer in (await self._ask("state")).values()]
        if self._group.ending:
            return ReadinessState(False, "stopping", _worst_store_state(states))
        ready = [each for each in states if each.ready]
        if not ready:
            return ReadinessState(False, "not listening", _worst_store_state(states))
        degraded = any(each.status == "degraded" for each in ready)
        return ReadinessState(True, "degraded" if degraded else "ready", _worst_store_state(ready))

    async def noted(self) -> WorkerState:
        """What they have noted."""
        return merge_states([WorkerState.from_json(each) for each in (await self._ask("noted")).values()])

    def _departed(self, number: int) -> None:
        """What a process had counted when it was last asked is kept when it is gone."""
        if number in self._seen:
            self._gone = counted(merge_metrics([exposed(self._gone).decode(), self._seen.pop(number)]))

    async def _ask(self, name: str) -> dict[int, Any]:
        try:
            return await self._group.ask(name)
        except RpcError:
            return {}


def _worst_store_state(states: Sequence[ReadinessState]) -> str:
    """Of several the one that has something to complain about."""
    told = [each.store for each in states]
    return next((each for each in told if each not in ("writable", "none")), told[0] if told else "none")
