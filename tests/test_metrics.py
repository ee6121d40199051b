"""Metrics as whoever scrapes them reads them."""

from __future__ import annotations

from attrs import define
from prometheus_client import REGISTRY, CollectorRegistry

from dockmirror.metrics import Metrics
from tests.scraped import scraped


@define
class Figures:
    """Counts of a cache."""

    size: int = 7
    evicted: int = 2
    evicted_bytes: int = 30
    expired: int = 2


@define
class Connected:
    """Counts of clients' connections."""

    open_count: int = 2
    running_requests: int = 1
    turned_away: int = 4


class Shared:
    """A bucket."""

    def __init__(self) -> None:
        self.requests = {"get": 3, "put": 1}
        self.failing, self.waiting = False, 0


def test_metrics_are_not_global() -> None:
    """Two sets are independent of each other and of the library's own registry."""
    one, other = Metrics(CollectorRegistry()), Metrics(CollectorRegistry())
    one.sent_bytes.labels("a").inc(5)
    assert scraped(one.registry)["dockmirror_sent_bytes_total", ("a",)] == 5
    assert ("dockmirror_sent_bytes_total", ("a",)) not in scraped(other.registry)
    assert not any(metric.name.startswith("dockmirror") for metric in REGISTRY.collect())


def test_gauges_are_read_at_each_scrape() -> None:
    """Connections, running requests and the size of the cache."""
    metrics, figures, connected = Metrics(CollectorRegistry()), Figures(), Connected()
    metrics.expose_connections(connected)
    metrics.expose_cache(figures)
    connected.open_count = 3
    figures.size = 8
    seen = scraped(metrics.registry)
    assert (seen["dockmirror_connections", ()], seen["dockmirror_running_requests", ()]) == (3, 1)
    assert seen["dockmirror_turned_away_total", ()] == 4
    assert seen["dockmirror_cache_bytes", ()] == 8
    metrics.cache_size = 0
    assert scraped(metrics.registry)["dockmirror_cache_bytes", ()] == 0
    assert seen["dockmirror_cache_evicted_total", ()] == 2
    assert seen["dockmirror_cache_evicted_bytes_total", ()] == 30
    assert seen["dockmirror_cache_expired_total", ()] == 2


def test_the_bucket_is_read_at_each_scrape() -> None:
    """Requests by operation, failure, and uploads that wait."""
    metrics, shared = Metrics(CollectorRegistry()), Shared()
    metrics.expose_bucket(shared)
    shared.failing, shared.waiting = True, 5
    seen = scraped(metrics.registry)
    assert seen["dockmirror_bucket_requests_total", ("get",)] == 3
    assert seen["dockmirror_bucket_requests_total", ("put",)] == 1
    assert (seen["dockmirror_bucket_failing", ()], seen["dockmirror_uploads_waiting", ()]) == (1, 5)


def test_certificates_are_read_at_each_scrape() -> None:
    """Each with its expiry, by file."""
    metrics, ends = Metrics(CollectorRegistry()), {"/c/a.pem": 5.0}
    metrics.expose_certificates(lambda: ends)
    ends["/c/b.pem"] = 7.0
    seen = scraped(metrics.registry)
    assert seen["dockmirror_certificate_not_after_seconds", ("/c/a.pem",)] == 5
    assert seen["dockmirror_certificate_not_after_seconds", ("/c/b.pem",)] == 7


def test_versions_are_labels() -> None:
    """The metric is 1."""
    metrics = Metrics(CollectorRegistry())
    metrics.expose_build(version="1.2", python="3")
    assert scraped(metrics.registry)["dockmirror_build_info", ("3", "1.2")] == 1
