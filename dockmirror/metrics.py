"""The metrics of the mirror, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

OTHER = "other"
"""The label of anything without a known name."""
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LAG = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)


class Metrics:
    """All metrics.

    Labels have no value that a client can choose: they are names from the settings, fixed words and statuses.

    :param registry: the registry that exposes them.
    :ivar cache_size: bytes in the cache, set before a scrape; None to expose eviction's own count.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.cache_size: int | None = None
        self.requests = Counter(
            "dockmirror_requests", "Requests answered.", ["host", "endpoint", "status"], registry=registry
        )
        self.sent_bytes = Counter(
            "dockmirror_sent_bytes", "Bytes of bodies sent to clients.", ["host"], registry=registry
        )
        self.accel_bytes = Counter(
            "dockmirror_accel_bytes",
            "Bytes of bodies left to the proxy in front (accel), as granted; sent_bytes has them, too.",
            ["host"],
            registry=registry,
        )
        self.results = Counter(
            "dockmirror_cache_results",
            "Requests by what the cache did with them.",
            ["upstream", "endpoint", "result"],
            registry=registry,
        )
        self.limited = Counter(
            "dockmirror_limited",
            "Requests refused because a client network has used up a limit.",
            ["limit"],
            registry=registry,
        )
        self.admissions = Counter(
            "dockmirror_admissions",
            "Manifests refused or replaced by a rule, or that would be by one that only warns.",
            ["upstream", "rule", "outcome"],
            registry=registry,
        )
        self.redirects = Counter(
            "dockmirror_near_redirects",
            "Blobs for which clients were sent to a copy near them.",
            ["region", "network"],
            registry=registry,
        )
        self.held_bytes = Counter(
            "dockmirror_cache_sent_bytes",
            "Bytes of bodies sent from the cache.",
            ["upstream"],
            registry=registry,
        )
        self.upstream_seconds = Histogram(
            "dockmirror_upstream_seconds",
            "Seconds from a request to the head of its response.",
            ["upstream"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.upstream_failures = Counter(
            "dockmirror_upstream_failures",
            "Requests without a usable answer.",
            ["upstream", "reason"],
            registry=registry,
        )
        self.received_bytes = Counter(
            "dockmirror_received_bytes",
            "Bytes of bodies received from upstreams.",
            ["upstream"],
            registry=registry,
        )
        self.prefetched_bytes = Counter(
            "dockmirror_prefetched_bytes",
            "Bytes of layers fetched before a client asked for them.",
            ["upstream"],
            registry=registry,
        )
        self.wasted_bytes = Counter(
            "dockmirror_prefetch_wasted_bytes",
            "Prefetched bytes that the client of the pull did not ask for.",
            ["upstream"],
            registry=registry,
        )
        self.peer_requests = Counter(
            "dockmirror_peer_requests",
            "Requests for blobs to other mirrors of the fleet.",
            ["peer", "outcome"],
            registry=registry,
        )
        self.tag_refreshes = Counter(
            "dockmirror_tag_refreshes",
            "Tags that the mirror asked about before a client had to wait.",
            ["upstream", "outcome"],
            registry=registry,
        )
        self.writes = Counter(
            "dockmirror_writes",
            "Pushes and deletions, refused ones too.",
            ["upstream", "method", "status"],
            registry=registry,
        )
        self.pushed_bytes = Counter(
            "dockmirror_pushed_bytes", "Bytes of bodies sent to upstreams.", ["upstream"], registry=registry
        )
        self.limit = Gauge(
            "dockmirror_upstream_ratelimit_limit", "The last RateLimit-Limit.",
            ["upstream", "account"], registry=registry,
        )  # fmt: skip
        self.remaining = Gauge(
            "dockmirror_upstream_ratelimit_remaining", "The last RateLimit-Remaining.",
            ["upstream", "account"], registry=registry,
        )  # fmt: skip
        self.lag = Histogram(
            "dockmirror_event_loop_lag_seconds", "Delay of a timer of two seconds.", buckets=_LAG,
            registry=registry,
        )  # fmt: skip
        self.disk_failing = Gauge(
            "dockmirror_disk_failing", "1 if the disk of the cache cannot be written.", registry=registry
        )

    def expose_connections(self, counts: ConnectionCounts) -> None:
        """Expose the numbers of connections and requests, read at each scrape."""
        self.registry.register(_Connections(counts))

    def expose_cache(self, counts: CacheCounts) -> None:
        """Expose the size of the cache, and its evictions."""
        self.registry.register(_Cache(counts, lambda: self.cache_size))

    def expose_downloads(self, counts: DownloadCounts) -> None:
        """Expose the outcomes of downloads."""
        self.registry.register(_Fetches(counts))

    def expose_bucket(self, counts: BucketCounts) -> None:
        """Expose the requests to the bucket, and the uploads that wait."""
        self.registry.register(_Bucket(counts))

    def expose_certificates(self, ends: Callable[[], Mapping[str, float]]) -> None:
        """Expose when certificates expire, in seconds since 1970, by file."""
        self.registry.register(_Certificates(ends))

    def expose_build(self, **versions: str) -> None:
        """Expose the versions of what is running."""
        Info("dockmirror_build", "What is running.", registry=self.registry).info(versions)


class ConnectionCounts(Protocol):
    """Counts of clients' connections; see ``OpenConnections``."""

    turned_away: int

    @property
    def open_count(self) -> int:
        """Return the number of open connections."""

    @property
    def running_requests(self) -> int:
        """Return the number of requests that are not answered yet."""


class _Connections(Collector):
    def __init__(self, counts: ConnectionCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        it = self._counts
        yield GaugeMetricFamily("dockmirror_connections", "Open connections of clients.", it.open_count)
        yield GaugeMetricFamily("dockmirror_running_requests", "Requests in progress.", it.running_requests)
        yield CounterMetricFamily(
            "dockmirror_turned_away", "Connections refused because of a limit.", it.turned_away
        )


class CacheCounts(Protocol):
    """Counts of the cache's contents; see ``Eviction``."""

    size: int
    evicted: int
    evicted_bytes: int
    expired: int


class _Cache(Collector):
    """Reads the counts at each scrape."""

    def __init__(self, counts: CacheCounts, measured: Callable[[], int | None]) -> None:
        self._counts = counts
        self._measured = measured

    def collect(self) -> Iterable[Metric]:
        measured = self._measured()
        size = self._counts.size if measured is None else measured
        yield GaugeMetricFamily("dockmirror_cache_bytes", "Bytes held.", size)
        yield CounterMetricFamily("dockmirror_cache_evicted", "Contents evicted.", self._counts.evicted)
        yield CounterMetricFamily(
            "dockmirror_cache_evicted_bytes", "Bytes of the contents evicted.", self._counts.evicted_bytes
        )
        yield CounterMetricFamily(
            "dockmirror_cache_expired", "Images deleted by the rules for retention.", self._counts.expired
        )


class DownloadCounts(Protocol):
    """Counts of downloads' outcomes."""

    kept: int
    wrong: int
    failed: int
    resumed: int


class _Fetches(Collector):
    def __init__(self, counts: DownloadCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        it = self._counts
        fetches = CounterMetricFamily("dockmirror_fetches", "Downloads by outcome.", labels=["outcome"])
        for outcome, count in (("kept", it.kept), ("wrong", it.wrong), ("failed", it.failed)):
            fetches.add_metric([outcome], count)
        yield fetches
        yield CounterMetricFamily(
            "dockmirror_resumptions", "Downloads resumed after they broke off.", it.resumed
        )


class BucketCounts(Protocol):
    """Counts of the bucket; see ``TieredStore``."""

    @property
    def requests(self) -> Mapping[str, int]:
        """Return the number of requests by operation."""

    @property
    def failing(self) -> bool:
        """True if the last request failed."""

    @property
    def waiting(self) -> int:
        """Return how many uploads wait."""


class _Bucket(Collector):
    def __init__(self, counts: BucketCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        it = self._counts
        requests = CounterMetricFamily(
            "dockmirror_bucket_requests", "Requests to the bucket.", labels=["operation"]
        )
        for operation, count in sorted(it.requests.items()):
            requests.add_metric([operation], count)
        yield requests
        yield GaugeMetricFamily("dockmirror_bucket_failing", "1 if the bucket fails.", int(it.failing))
        yield GaugeMetricFamily("dockmirror_uploads_waiting", "Uploads to the bucket that wait.", it.waiting)


class _Certificates(Collector):
    def __init__(self, ends: Callable[[], Mapping[str, float]]) -> None:
        self._ends = ends

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "dockmirror_certificate_not_after_seconds", "Expiry of a certificate.", labels=["file"]
        )
        for file, ends in self._ends().items():
            family.add_metric([file], ends)
        yield family
