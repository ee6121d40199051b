"""What the operators' endpoint tells, put together."""

from __future__ import annotations

import platform
from collections.abc import Callable, Coroutine
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prometheus_client.exposition import generate_latest
from twisted.internet.interfaces import IReactorTime

from ..config.settings import Settings
from ..http.server import HttpSite
from ..metrics import Metrics
from ..status.status_values import CacheUsage, UpstreamStatus, WorkerState
from ..status.upstream_health import UpstreamHealthTable
from ..web.readiness import ReadinessCheck, ReadinessState
from ..web.request_counter import RequestCounter
from .cache import CacheParts
from .client_facing import registry_names


class ProcessTelemetry:
    """What is told of one process."""

    def __init__(
        self,
        metrics: Metrics,
        readiness: ReadinessCheck,
        noted: Callable[[], Coroutine[Any, Any, WorkerState]],
    ) -> None:
        self._metrics = metrics
        self._readiness = readiness
        self._noted = noted

    async def metrics(self) -> bytes:
        """See ``WorkerTelemetry``."""
        return generate_latest(self._metrics.registry)

    async def state(self) -> ReadinessState:
        """See ``WorkerTelemetry``."""
        return await self._readiness.state()

    async def noted(self) -> WorkerState:
        """See ``WorkerTelemetry``."""
        return await self._noted()


def told_of(
    metrics: Metrics,
    site: HttpSite,
    clock: IReactorTime,
    cache: CacheParts | None,
    noted: Callable[[], Coroutine[Any, Any, WorkerState]],
) -> ProcessTelemetry:
    """What is told of the site, of the cache, and of what has been noted."""
    metrics.watch_connections(site.connections)
    if cache is not None:
        metrics.watch_cache(cache.eviction)
        metrics.watch_fetches(cache.fetched)
        if cache.shared is not None:
            metrics.watch_bucket(cache.shared)
    metrics.tell_build(
        version=_version("dockmirror"), twisted=_version("twisted"), python=platform.python_version()
    )
    return ProcessTelemetry(metrics, ReadinessCheck(site, clock, cache.checks if cache else ()), noted)


async def noted(settings: Settings, upstreams: UpstreamHealthTable, cache: CacheParts | None) -> WorkerState:
    """Return what is known of the upstreams of these settings, and of the cache.

    How much the cache holds is what was measured with the usage of each registry, so that both agree.
    """
    known = tuple(_upstream(name, settings, upstreams) for name in settings.upstreams)
    if cache is None:
        return WorkerState(known)
    usage = await cache.usage()
    held = cache.eviction.held if usage is None else usage.held
    return WorkerState(known, tuple(cache.under_way()), CacheUsage(held, cache.eviction.limit), usage=usage)


def _upstream(name: str, settings: Settings, upstreams: UpstreamHealthTable) -> UpstreamStatus:
    of, outcomes = settings.upstreams[name], upstreams.of(name)
    addresses = tuple(outcomes.of(url).address for url in of.urls)
    host = settings.host(name)
    return UpstreamStatus(name, registry_names(of)[0], host, addresses, outcomes.rests, outcomes.quota)


def counted(settings: Settings, metrics: Metrics) -> RequestCounter:
    """What counts requests by the hosts of these settings; all names of the mirror's own host are one."""
    own = dict.fromkeys((settings.domain, "localhost", *settings.names), settings.domain)
    virtual = {settings.host(name): settings.host(name) for name in settings.upstreams}
    return RequestCounter({**virtual, **own}, settings.domain, metrics)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from its sources
        return "unknown"
