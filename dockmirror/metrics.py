"""What is counted and measured, for whoever watches the mirror from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

OTHER = "other"
"""The value of a label for whatever is not known by name."""
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LAG = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)


class Metrics:
    """Every metric there is.

    No value of a label is a client's: they are names from the settings, words of ours, and statuses.

    :param registry: in which they are exposed, and nothing else.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.requests = Counter(
            "dockmirror_requests", "Requests answered.", ["host", "endpoint", "status"], registry=registry
        )
        self.sent_bytes = Counter(
            "dockmirror_sent_bytes", "Bytes of bodies sent to clients.", ["host"], registry=registry
        )
        self.results = Counter(
            "dockmirror_cache_results",
            "What the cache did with a request.",
            ["upstream", "endpoint", "result"],
            registry=registry,
        )
        self.held_bytes = Counter(
            "dockmirror_cache_sent_bytes", "Bytes of bodies that were held.", ["upstream"], registry=registry
        )
        self.upstream_seconds = Histogram(
            "dockmirror_upstream_seconds",
            "Seconds from a question to the head of its response.",
            ["upstream"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.upstream_failures = Counter(
            "dockmirror_upstream_failures",
            "Questions that got no answer of use.",
            ["upstream", "reason"],
            registry=registry,
        )
        self.received_bytes = Counter(
            "dockmirror_received_bytes",
            "Bytes of bodies received from upstreams.",
            ["upstream"],
            registry=registry,
        )
        self.writes = Counter(
            "dockmirror_writes",
            "What was pushed or deleted, or was to be.",
            ["upstream", "method", "status"],
            registry=registry,
        )
        self.pushed_bytes = Counter(
            "dockmirror_pushed_bytes", "Bytes of bodies sent to upstreams.", ["upstream"], registry=registry
        )
        self.limit = Gauge(
            "dockmirror_upstream_ratelimit_limit", "RateLimit-Limit as last told.", ["upstream"],
            registry=registry,
        )  # fmt: skip
        self.remaining = Gauge(
            "dockmirror_upstream_ratelimit_remaining", "RateLimit-Remaining as last told.", ["upstream"],
            registry=registry,
        )  # fmt: skip
        self.lag = Histogram(
            "dockmirror_event_loop_lag_seconds", "How late a timer of one second was.", buckets=_LAG,
            registry=registry,
        )  # fmt: skip

    def watch_connections(self, connected: Connected) -> None:
        """Exposes how many connections and requests there are, at the time of asking."""
        self.registry.register(_Connections(connected))

    def watch_cache(self, held: Held) -> None:
        """Exposes what the cache holds, and what has gone from it."""
        self.registry.register(_Cache(held))

    def watch_fetches(self, fetched: Fetched) -> None:
        """Exposes what has come of the blobs that were fetched."""
        self.registry.register(_Fetches(fetched))

    def watch_bucket(self, shared: Shared) -> None:
        """Exposes what the bucket was asked, and what it is owed."""
        self.registry.register(_Bucket(shared))

    def watch_certificates(self, ends: Callable[[], Mapping[str, float]]) -> None:
        """Exposes when certificates end, in seconds since 1970 and by the files that they stand in."""
        self.registry.register(_Certificates(ends))

    def tell_build(self, **versions: str) -> None:
        """Exposes what is running."""
        Info("dockmirror_build", "What is running.", registry=self.registry).info(versions)


class Connected(Protocol):
    """Clients' connections; see ``OpenConnections``."""

    turned_away: int

    @property
    def open_count(self) -> int:
        """Return the number of open connections."""

    @property
    def running_requests(self) -> int:
        """Return the number of requests that are not answered yet."""


class _Connections(Collector):
    def __init__(self, connected: Connected) -> None:
        self._connected = connected

    def collect(self) -> Iterable[Metric]:
        connected = self._connected
        yield GaugeMetricFamily(
            "dockmirror_connections", "Connections of clients that are open.", connected.open_count
        )
        yield GaugeMetricFamily(
            "dockmirror_running_requests", "Requests that are not answered yet.", connected.running_requests
        )
        yield CounterMetricFamily(
            "dockmirror_turned_away", "Connections beyond a limit.", connected.turned_away
        )


class Held(Protocol):
    """What keeps to a budget; see ``Eviction``."""

    size: int
    evicted: int
    evicted_bytes: int


class _Cache(Collector):
    """Reads its figures when they are asked for, where they are kept already."""

    def __init__(self, held: Held) -> None:
        self._held = held

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("dockmirror_cache_bytes", "Bytes held.", self._held.size)
        yield CounterMetricFamily("dockmirror_cache_evicted", "Contents evicted.", self._held.evicted)
        yield CounterMetricFamily(
            "dockmirror_cache_evicted_bytes", "Bytes of the contents evicted.", self._held.evicted_bytes
        )


class Fetched(Protocol):
    """What has come of fetches; see ``DownloadStats``."""

    kept: int
    wrong: int
    failed: int
    resumed: int


class _Fetches(Collector):
    def __init__(self, fetched: Fetched) -> None:
        self._fetched = fetched

    def collect(self) -> Iterable[Metric]:
        it = self._fetched
        fetches = CounterMetricFamily(
            "dockmirror_fetches", "Blobs fetched to be kept, by what came of them.", labels=["outcome"]
        )
        for outcome, count in (("kept", it.kept), ("wrong", it.wrong), ("failed", it.failed)):
            fetches.add_metric([outcome], count)
        yield fetches
        yield CounterMetricFamily(
            "dockmirror_resumptions", "Times that a fetch that had broken off went on.", it.resumed
        )


class Shared(Protocol):
    """The bucket behind the cache; see ``TieredStore``."""

    @property
    def requests(self) -> Mapping[str, int]:
        """How many it was asked, by what."""

    @property
    def failing(self) -> bool:
        """Whether the last one failed."""

    @property
    def waiting(self) -> int:
        """How much is still to be uploaded."""


class _Bucket(Collector):
    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def collect(self) -> Iterable[Metric]:
        it = self._shared
        requests = CounterMetricFamily(
            "dockmirror_bucket_requests", "Requests to the bucket.", labels=["operation"]
        )
        for operation, count in sorted(it.requests.items()):
            requests.add_metric([operation], count)
        yield requests
        yield GaugeMetricFamily("dockmirror_bucket_failing", "Whether the bucket fails.", int(it.failing))
        yield GaugeMetricFamily("dockmirror_uploads_waiting", "What is still to be uploaded.", it.waiting)


class _Certificates(Collector):
    """Those that are shown at the time of asking."""

    def __init__(self, ends: Callable[[], Mapping[str, float]]) -> None:
        self._ends = ends

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "dockmirror_certificate_not_after_seconds", "When a certificate ends.", labels=["file"]
        )
        for file, ends in self._ends().items():
            family.add_metric([file], ends)
        yield family
