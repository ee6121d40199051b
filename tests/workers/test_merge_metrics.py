"""The metrics of several processes as those of one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import generate_latest

from dockmirror.metrics import Metrics
from dockmirror.workers.merge_metrics import counted, exposed, merge_metrics
from tests.scraped import parsed
from tests.test_metrics import Connected, Figures


def exposition(requests: int, connections: int, held: int, remaining: int) -> str:
    """Of a process that has seen that much."""
    metrics = Metrics(CollectorRegistry())
    metrics.requests.labels("a", "ping", "200").inc(requests)
    metrics.lag.observe(0.02)
    metrics.remaining.labels("docker").set(remaining)
    metrics.watch_connections(Connected(open=connections))
    metrics.watch_cache(Figures(held=held))
    metrics.tell_build(version="1")
    return generate_latest(metrics.registry).decode()


def test_what_is_summed() -> None:
    """Counters, each bucket of histograms, and what is divided among them."""
    samples = parsed(exposed(merge_metrics([exposition(2, 3, 5, 7), exposition(10, 20, 30, 40)])).decode())
    assert samples["dockmirror_requests_total", ("ping", "a", "200")] == 12
    assert samples["dockmirror_connections", ()] == 23
    assert samples["dockmirror_event_loop_lag_seconds_count", ()] == 2
    assert samples["dockmirror_event_loop_lag_seconds_bucket", ("0.05",)] == 2
    assert samples["dockmirror_event_loop_lag_seconds_bucket", ("0.01",)] == 0
    assert samples["dockmirror_cache_evicted_total", ()] == 4


def test_what_all_see_alike() -> None:
    """Is what the one that knows most says."""
    samples = parsed(exposed(merge_metrics([exposition(2, 3, 5, 7), exposition(10, 20, 30, 40)])).decode())
    assert samples["dockmirror_cache_bytes", ()] == 30
    assert samples["dockmirror_upstream_ratelimit_remaining", ("docker",)] == 40
    assert samples["dockmirror_build_info", ("1",)] == 1


def test_one_is_as_it_was() -> None:
    """Every sample, name and kind."""
    text = exposition(2, 3, 5, 7)
    assert parsed(exposed(merge_metrics([text])).decode()) == parsed(text)


def test_what_is_left_of_one_that_is_gone() -> None:
    """What it has counted, and nothing that it had open."""
    left = parsed(exposed(counted(merge_metrics([exposition(2, 3, 5, 7)]))).decode())
    assert left["dockmirror_requests_total", ("ping", "a", "200")] == 2
    assert left["dockmirror_event_loop_lag_seconds_count", ()] == 1
    assert ("dockmirror_connections", ()) not in left
    assert ("dockmirror_cache_bytes", ()) not in left


def test_labels_with_odd_values() -> None:
    """Are kept apart."""
    registry = CollectorRegistry()
    gauge = Gauge("dockmirror_odd", "x", ["name"], registry=registry)
    for value in ('"', "\\", "\n", "a,b"):
        gauge.labels(value).set(1)
    text = generate_latest(registry).decode()
    assert len(parsed(exposed(merge_metrics([text, text])).decode())) == 4


def test_nothing() -> None:
    """Is nothing."""
    assert exposed(merge_metrics([])) == b""
