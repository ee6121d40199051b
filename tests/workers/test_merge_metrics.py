"""The metrics of several processes, merged into those of one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import generate_latest

from dockmirror.app.telemetry import format_metrics, merge_metrics, select_cumulative
from dockmirror.metrics import Metrics
from tests.scraped import parsed
from tests.test_metrics import Connected, Figures


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
