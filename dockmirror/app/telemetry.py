"""The metrics and state that the mirror reports: what one process records, and what a pool of them merges."""

from __future__ import annotations

import platform
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import cache as cache_calls
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from attrs import frozen
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from twisted.internet.interfaces import IReactorTime

from ..config.settings import Settings
from ..history.pull_table import PullTable
from ..history.recorder import PullRecorder
from ..http.server import HttpSite
from ..metrics import Metrics
from ..status import (
    AccountStatus,
    CacheUsage,
    CertificateStatus,
    UpstreamHealthTable,
    UpstreamStatus,
    Usage,
    WorkerState,
    merge_states,
)
from ..system.networks import Address, Region, network_class
from ..system.shared_table import SharedDigests
from ..web.access_log import RequestCounter
from ..web.readiness import ReadinessCheck, ReadinessState, describe_store
from ..web.shared_tables import SharedTables
from ..workers.worker_program import RpcError
from .accounts import REST
from .cache import CacheParts

_SUMMED_GAUGES = {"dockmirror_connections", "dockmirror_running_requests"}
"""Gauges of what each process has for itself; every other gauge is (nearly) the same in all processes."""
_SampleKey = tuple[str, tuple[tuple[str, str], ...]]


@frozen
class Telemetry:
    """The recorders of one process; some write to memory that other processes share.

    :ivar prefetched: the layers that were fetched before a client asked for them.
    """

    metrics: Metrics
    upstreams: UpstreamHealthTable
    pulls: PullRecorder | None
    prefetched: SharedDigests

    @classmethod
    def create(cls, memory: SharedTables, clock: IReactorTime, keeps_history: bool = True) -> Telemetry:
        return cls(
            Metrics(CollectorRegistry()),
            UpstreamHealthTable(clock),
            PullRecorder(PullTable(memory.pulls), clock) if keeps_history else None,
            SharedDigests(memory.prefetched, clock.seconds),
        )

    def count_redirect(self, region: Region, address: Address) -> None:
        """Count a client that was sent to a copy near it."""
        self.metrics.redirects.labels(region.name, network_class(address)).inc()


@frozen
class ProcessTelemetry:
    """Reports the metrics and the state of one process; see ``WorkerTelemetry``.

    :param usage: measures the cache, as its status shows it; None without one.
    """

    _metrics: Metrics
    _readiness: ReadinessCheck
    _read_state: Callable[[], Coroutine[Any, Any, WorkerState]]
    _usage: Callable[[], Coroutine[Any, Any, Usage | None]] | None = None

    async def metrics(self) -> bytes:
        disk = await describe_store(self._readiness.checks[:1], self._readiness.clock)
        self._metrics.disk_failing.set(disk not in ("writable", "none"))
        usage = await self._usage() if self._usage else None
        self._metrics.cache_size = usage.held if usage else None
        return generate_latest(self._metrics.registry)

    async def state(self) -> ReadinessState:
        return await self._readiness.state()

    async def worker_state(self) -> WorkerState:
        return await self._read_state()


def make_process_telemetry(
    metrics: Metrics,
    site: HttpSite,
    clock: IReactorTime,
    cache: CacheParts | None,
    read_state: Callable[[], Coroutine[Any, Any, WorkerState]],
) -> ProcessTelemetry:
    """Let the metrics observe the site and the cache, and return what reports them."""
    metrics.expose_connections(site.connections)
    if cache is not None:
        metrics.expose_cache(cache.eviction)
        metrics.expose_downloads(cache.download_stats)
        if cache.tiered is not None:
            metrics.expose_bucket(cache.tiered)
    metrics.expose_build(
        version=find_version("dockmirror"), twisted=find_version("twisted"), python=platform.python_version()
    )
    return ProcessTelemetry(
        metrics,
        ReadinessCheck(site, clock, cache.store_checks if cache else ()),
        read_state,
        cache.usages.latest if cache else None,
    )


async def read_worker_state(
    settings: Settings,
    upstreams: UpstreamHealthTable,
    cache: CacheParts | None,
    expiry_times: Mapping[str, float],
) -> WorkerState:
    """Return the state of the upstreams, of the cache and of the certificates.

    The cache's size was measured together with the usage of each registry, so that both agree.

    :param expiry_times: of the certificates, by their files.
    """
    known = tuple(_upstream_status(name, settings, upstreams) for name in settings.upstreams)
    certificates = tuple(CertificateStatus(file, expires) for file, expires in expiry_times.items())
    if cache is None:
        return WorkerState(known, certificates=certificates)
    usage = await cache.usages.latest()
    held = cache.eviction.size if usage is None else usage.held
    return WorkerState(
        known,
        tuple(cache.downloads.active()),
        CacheUsage(held, cache.eviction.limit, cache.eviction.min_free),
        usage=usage,
        certificates=certificates,
    )


def _upstream_status(name: str, settings: Settings, upstreams: UpstreamHealthTable) -> UpstreamStatus:
    upstream, health = settings.upstreams[name], upstreams.of(name)
    return UpstreamStatus(
        name=name,
        registry=upstream.canonical,
        host=settings.host(name),
        addresses=tuple(health.of(url).address for url in upstream.urls),
        rests=health.rests,
        quota=health.quotas.get(REST),
        offline=settings.is_offline(upstream),
        accounts=tuple(AccountStatus(each.name, health.quotas.get(each.name)) for each in upstream.accounts),
    )


def make_request_counter(settings: Settings, metrics: Metrics) -> RequestCounter:
    """Return the counter of requests by host; all names of the mirror's own host count as its domain."""
    own = dict.fromkeys((settings.domain, "localhost", *settings.names), settings.domain)
    virtual = {settings.host(name): settings.host(name) for name in settings.upstreams}
    return RequestCounter({**virtual, **own}, settings.domain, metrics)


@cache_calls
def find_version(package: str) -> str:
    """Return the version of an installed package, or ``unknown``; it is kept for forked workers, too."""
    try:
        return version(package)
    except PackageNotFoundError:  # run from its sources
        return "unknown"


class CallableWorkers(Protocol):
    """The worker processes as ``PoolTelemetry`` needs them; see ``WorkerPool``."""

    is_stopping: bool
    on_exit: Callable[[int], None]

    async def call(self, method: str) -> dict[int, Any]:
        """Return the workers' answers, by the numbers of the workers."""


class PoolTelemetry:
    """Reports the merged metrics and state of all workers; see ``WorkerTelemetry``.

    Counters of a worker that has exited stay in the sums, and those of one that does not answer.
    """

    def __init__(self, pool: CallableWorkers) -> None:
        pool.on_exit = self._keep_counters
        self._pool = pool
        self._last_metrics: dict[int, str] = {}
        self._exited: list[Metric] = []
        self._exits = 0

    async def metrics(self) -> bytes:
        answers = await self._call("metrics")
        self._last_metrics.update(answers)
        families = merge_metrics([format_metrics(self._exited).decode(), *self._last_metrics.values()])
        workers = GaugeMetricFamily("dockmirror_workers", "Processes that serve.", len(answers))
        exits = CounterMetricFamily("dockmirror_workers_exited", "Workers that exited by themselves.")
        exits.add_metric([], self._exits)
        return format_metrics([*families, workers, exits])

    async def state(self) -> ReadinessState:
        """Return ready if any worker is, with the worst state among those."""
        states = [ReadinessState(**answer) for answer in (await self._call("readiness")).values()]
        if self._pool.is_stopping:
            return ReadinessState(False, "stopping", _worst_store_state(states))
        ready = [each for each in states if each.ready]
        if not ready:
            return ReadinessState(False, "not listening", _worst_store_state(states))
        is_degraded = any(each.status == "degraded" for each in ready)
        return ReadinessState(True, "degraded" if is_degraded else "ready", _worst_store_state(ready))

    async def worker_state(self) -> WorkerState:
        return merge_states([WorkerState.from_json(each) for each in (await self._call("state")).values()])

    def _keep_counters(self, worker: int) -> None:
        self._exits += not self._pool.is_stopping
        if worker in self._last_metrics:
            last = self._last_metrics.pop(worker)
            self._exited = select_cumulative(merge_metrics([format_metrics(self._exited).decode(), last]))

    async def _call(self, method: str) -> dict[int, Any]:
        try:
            return await self._pool.call(method)
        except RpcError:
            return {}


def _worst_store_state(states: Sequence[ReadinessState]) -> str:
    stores = [each.store for each in states]
    return next(
        (each for each in stores if each not in ("writable", "none")), stores[0] if stores else "none"
    )


def merge_metrics(expositions: Iterable[str]) -> list[Metric]:
    """Sum counters, histograms and the gauges of each process; of other gauges take the largest value."""
    families: dict[str, Metric] = {}
    samples: dict[_SampleKey, tuple[str, Sample]] = {}
    for text in expositions:
        for family in text_string_to_metric_families(text):
            families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                key = sample.name, tuple(sorted(sample.labels.items()))
                previous = samples.get(key)
                value = (
                    sample.value
                    if previous is None
                    else _merge_values(family, previous[1].value, sample.value)
                )
                samples[key] = family.name, sample._replace(value=value)
    for name, sample in samples.values():
        families[name].samples.append(sample)
    return list(families.values())


def _merge_values(family: Metric, one: float, other: float) -> float:
    is_summed = family.type in ("counter", "histogram") or family.name in _SUMMED_GAUGES
    return one + other if is_summed else max(one, other)


def select_cumulative(families: Iterable[Metric]) -> list[Metric]:
    """Return the counters and histograms, which count on after the process that counted has exited."""
    return [family for family in families if family.type in ("counter", "histogram")]


def format_metrics(families: Sequence[Metric]) -> bytes:
    """Write metrics in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_StaticCollector(families))
    return generate_latest(registry)


class _StaticCollector(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        return self._families
