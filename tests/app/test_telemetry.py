"""The telemetry of several workers, and their metrics, merged into those of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import generate_latest
from twisted.internet.task import Clock
from twisted.web.resource import Resource

from dockmirror.app.telemetry import (
    PoolTelemetry,
    ProcessTelemetry,
    format_metrics,
    merge_metrics,
    select_cumulative,
)
from dockmirror.http.server import HttpSite
from dockmirror.metrics import Metrics
from dockmirror.status import CacheUsage, Usage, WorkerState
from dockmirror.store import layout
from dockmirror.store.eviction.eviction import CHECK_INTERVAL
from dockmirror.web.readiness import ReadinessCheck, ReadinessState, describe_store
from dockmirror.workers.worker_program import RpcError
from tests.scraped import parsed
from tests.stacks import now
from tests.test_metrics import Connected, Figures

from ..internet import Internet
from .cached_house import StoringHouse


class FakePool:
    """Workers, and their answers."""

    def __init__(self, *answers: Any) -> None:
        self.answers = dict(enumerate(answers))
        self.is_stopping = False
        self.on_exit: Callable[[int], None] = print

    async def call(self, method: str) -> dict[int, Any]:
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


def test_metrics_are_merged_and_counters_of_silent_and_exited_workers_remain() -> None:
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
    assert totals() == (4, 2, 1, 0)
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


def expose_process(requests: int, connections: int, held: int, remaining: int) -> str:
    """Return the metrics of a process with these values."""
    metrics = Metrics(CollectorRegistry())
    metrics.requests.labels("a", "ping", "200").inc(requests)
    metrics.lag.observe(0.02)
    metrics.remaining.labels("docker", "").set(remaining)
    metrics.expose_connections(Connected(open_count=connections))
    metrics.expose_cache(Figures(size=held))
    metrics.expose_build(version="1")
    return generate_latest(metrics.registry).decode()


def test_the_metrics_of_processes_are_summed() -> None:
    """The largest value counts of gauges that all processes share."""
    processes = [expose_process(2, 3, 5, 7), expose_process(10, 20, 30, 40)]
    samples = parsed(format_metrics(merge_metrics(processes)).decode())
    expected = {
        ("requests_total", ("ping", "a", "200")): 12, ("connections", ()): 23,
        ("event_loop_lag_seconds_count", ()): 2, ("event_loop_lag_seconds_bucket", ("0.05",)): 2,
        ("event_loop_lag_seconds_bucket", ("0.01",)): 0, ("cache_evicted_total", ()): 4,
        ("cache_bytes", ()): 30, ("upstream_ratelimit_remaining", ("", "docker")): 40,
        ("build_info", ("1",)): 1,
    }  # fmt: skip
    assert {key: samples[f"dockmirror_{key[0]}", key[1]] for key in expected} == expected


def test_merging_one_process_changes_nothing() -> None:
    """Every sample keeps its name, labels and kind; no process has no metrics."""
    text = expose_process(2, 3, 5, 7)
    assert parsed(format_metrics(merge_metrics([text])).decode()) == parsed(text)
    assert format_metrics(merge_metrics([])) == b""


def test_counters_of_an_exited_process_remain_and_its_gauges_go() -> None:
    left = parsed(format_metrics(select_cumulative(merge_metrics([expose_process(2, 3, 5, 7)]))).decode())
    assert left["dockmirror_requests_total", ("ping", "a", "200")] == 2
    assert left["dockmirror_event_loop_lag_seconds_count", ()] == 1
    assert ("dockmirror_connections", ()) not in left
    assert ("dockmirror_cache_bytes", ()) not in left


def test_labels_with_special_characters_stay_distinct() -> None:
    registry = CollectorRegistry()
    gauge = Gauge("dockmirror_odd", "x", ["name"], registry=registry)
    for value in ('"', "\\", "\n", "a,b"):
        gauge.labels(value).set(1)
    text = generate_latest(registry).decode()
    assert len(parsed(format_metrics(merge_metrics([text, text])).decode())) == 4


def test_a_cache_from_which_nothing_can_be_evicted_is_a_failing_store(tmp_path: Path) -> None:
    house = StoringHouse(Internet(), tmp_path, {})
    checks = house.cache.store_checks[1:]  # that of the disk needs a thread
    assert now(describe_store(checks, house.clock)) == "writable"
    (tmp_path / layout.REPOSITORIES).rmdir()
    (tmp_path / layout.REPOSITORIES).symlink_to("repositories")  # root, too, cannot list a link to itself
    house.clock.advance(CHECK_INTERVAL)
    house.settle()
    said = now(describe_store(checks, house.clock))
    assert said.startswith("the cache cannot be kept within its budget: [Errno 40] Too many levels")
    house.close()
