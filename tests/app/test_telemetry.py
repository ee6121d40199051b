"""The merged telemetry of several workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from twisted.web.resource import Resource

from dockmirror.app.telemetry import PoolTelemetry, ProcessTelemetry
from dockmirror.http.server import HttpSite
from dockmirror.metrics import Metrics
from dockmirror.status import CacheUsage, Usage, WorkerState
from dockmirror.web.readiness import ReadinessCheck, ReadinessState
from dockmirror.workers.worker_pool import RpcError
from tests.scraped import parsed
from tests.stacks import now
from tests.test_metrics import Figures


class FakePool:
    """Workers, and their answers."""

    def __init__(self, *answers: Any) -> None:
        self.answers = dict(enumerate(answers))
        self.is_stopping = False
        self.on_exit: Callable[[int], None] = print

    async def call(self, method: str, value: object = None) -> dict[int, Any]:
        if any(isinstance(answer, Exception) for answer in self.answers.values()):
            raise RpcError("no")
        return dict(self.answers)


def state_of(status: str, store: str = "writable") -> dict[str, Any]:
    """Return a worker's answer about its readiness."""
    return {"ready": status in ("ready", "degraded"), "status": status, "store": store}


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([state_of("ready"), state_of("ready")], ReadinessState(True, "ready", "writable")),
        ([state_of("ready"), state_of("degraded", "full")], ReadinessState(True, "degraded", "full")),
        ([state_of("ready"), state_of("not listening", "none")], ReadinessState(True, "ready", "writable")),
        (
            [state_of("not listening"), state_of("stopping")],
            ReadinessState(False, "not listening", "writable"),
        ),
        ([state_of("ready", "none")], ReadinessState(True, "ready", "none")),
        ([], ReadinessState(False, "not listening", "none")),
        ([ValueError()], ReadinessState(False, "not listening", "none")),
    ],
)
def test_the_pool_is_ready_if_any_worker_is(states: list[Any], expected: ReadinessState) -> None:
    """Its state is the worst of the ready workers."""
    assert now(PoolTelemetry(FakePool(*states)).state()) == expected


def test_a_stopping_pool_is_not_ready() -> None:
    pool = FakePool(state_of("ready"))
    pool.is_stopping = True
    assert now(PoolTelemetry(pool).state()) == ReadinessState(False, "stopping", "writable")


def test_metrics_are_merged_and_counters_of_exited_workers_remain() -> None:
    """Workers that were stopped do not count as exited by themselves."""
    text = (
        "# TYPE dockmirror_a_total counter\ndockmirror_a_total 2\n# TYPE dockmirror_connections gauge\n"
        "dockmirror_connections 1\n"
    )
    pool = FakePool(text, text)
    telemetry = PoolTelemetry(pool)

    def totals() -> tuple[float, ...]:
        samples = parsed(now(telemetry.metrics()).decode())
        return tuple(
            samples.get((name, ()), 0.0)
            for name in (
                "dockmirror_a_total",
                "dockmirror_connections",
                "dockmirror_workers",
                "dockmirror_workers_exited_total",
            )
        )

    assert totals() == (4, 2, 2, 0)
    del pool.answers[0]
    pool.on_exit(0)
    assert totals() == (4, 1, 1, 1)
    pool.on_exit(7)
    pool.answers[2] = text
    assert totals() == (6, 2, 2, 2)
    pool.is_stopping = True
    for number in (1, 2):
        del pool.answers[number]
        pool.on_exit(number)
    assert totals() == (6, 0, 0, 2)


@pytest.mark.parametrize(("measured", "expected"), [(Usage(0.0, 0.0, (), held=7), 7), (None, 5)])
def test_the_size_of_the_cache_is_that_of_the_status(measured: Usage | None, expected: int) -> None:
    metrics, clock = Metrics(CollectorRegistry()), Clock()
    metrics.expose_cache(Figures(size=5))

    async def read_state() -> WorkerState:
        raise AssertionError("a scrape needs no other state")

    async def usage() -> Usage | None:
        return measured

    readiness = ReadinessCheck(HttpSite(Resource(), clock), clock, ())
    scrape = now(ProcessTelemetry(metrics, readiness, read_state, usage).metrics())
    assert parsed(scrape.decode())["dockmirror_cache_bytes", ()] == expected


def test_states_are_merged_and_empty_if_a_worker_fails() -> None:
    states = [WorkerState(cache=CacheUsage(size, 100)).as_json() for size in (5, 7)]
    assert now(PoolTelemetry(FakePool(*states)).worker_state()) == WorkerState(
        cache=CacheUsage(7, 100), processes=2
    )
    assert now(PoolTelemetry(FakePool(ValueError())).worker_state()) == WorkerState(processes=0)
