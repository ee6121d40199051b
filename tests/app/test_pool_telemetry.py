"""What is told of several processes, as of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dockmirror.app.pool_telemetry import PoolTelemetry
from dockmirror.status.status_values import CacheUsage, WorkerState
from dockmirror.web.readiness import ReadinessState
from dockmirror.workers.rpc_channel import RpcError
from tests.scraped import parsed
from tests.stacks import now


class Group:
    """Processes and what they answer."""

    def __init__(self, *answers: Any) -> None:
        self.answers = dict(enumerate(answers))
        self.ending = False
        self.departed: Callable[[int], None] = print

    async def ask(self, name: str, value: object = None) -> dict[int, Any]:
        """The same to everything."""
        if any(isinstance(answer, Exception) for answer in self.answers.values()):
            raise RpcError("no")
        return dict(self.answers)


def state(status: str, store: str = "writable") -> dict[str, Any]:
    """As a process tells it."""
    return {"ready": status in ("ready", "degraded"), "status": status, "store": store}


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([state("ready"), state("ready")], ReadinessState(True, "ready", "writable")),
        ([state("ready"), state("degraded", "full")], ReadinessState(True, "degraded", "full")),
        ([state("ready"), state("not listening", "none")], ReadinessState(True, "ready", "writable")),
        ([state("not listening"), state("stopping")], ReadinessState(False, "not listening", "writable")),
        ([state("ready", "none")], ReadinessState(True, "ready", "none")),
        ([], ReadinessState(False, "not listening", "none")),
        ([ValueError()], ReadinessState(False, "not listening", "none")),
    ],
)
def test_how_they_are(states: list[Any], expected: ReadinessState) -> None:
    """Ready as soon as one is; as the worst of those that are."""
    assert now(PoolTelemetry(Group(*states)).state()) == expected


def test_when_all_are_to_end() -> None:
    """They are not ready, whatever each says."""
    group = Group(state("ready"))
    group.ending = True
    assert now(PoolTelemetry(group).state()) == ReadinessState(False, "stopping", "writable")


def test_metrics() -> None:
    """Are those of all together; what one counted goes on to count when it is gone."""
    text = (
        "# TYPE dockmirror_a_total counter\ndockmirror_a_total 2\n# TYPE dockmirror_connections gauge\n"
        "dockmirror_connections 1\n"
    )
    group = Group(text, text)
    together = PoolTelemetry(group)

    def told() -> tuple[float, ...]:
        samples = parsed(now(together.metrics()).decode())
        return tuple(
            samples.get((name, ()), 0.0)
            for name in ("dockmirror_a_total", "dockmirror_connections", "dockmirror_workers")
        )

    assert told() == (4, 2, 2)
    del group.answers[0]
    group.departed(0)
    assert told() == (4, 1, 1)
    group.departed(7)
    group.answers[2] = text
    assert told() == (6, 2, 2)
    for number in (1, 2):
        del group.answers[number]
        group.departed(number)
    assert told() == (6, 0, 0)


def test_what_they_have_noted() -> None:
    """Is told as of one; nobody has noted anything where one of them refuses."""
    told = [WorkerState(cache=CacheUsage(size, 100)).as_json() for size in (5, 7)]
    assert now(PoolTelemetry(Group(*told)).noted()) == WorkerState(cache=CacheUsage(7, 100), processes=2)
    assert now(PoolTelemetry(Group(ValueError())).noted()) == WorkerState(processes=0)
