"""What the operators' endpoint tells, put together."""

from __future__ import annotations

import platform
from collections.abc import Callable, Coroutine
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prometheus_client.exposition import generate_latest
from twisted.internet.interfaces import IReactorTime

from ..config.settings import Settings
from ..metrics import Metrics
from ..status.outcomes import Upstreams
from ..status.values import Held, Noted, Upstream
from ..web.counted import Counted
from ..web.readiness import Readiness, State
from ..web.wire import Site
from .cache import Cache
from .offered import registry_names


class Told:
    """What is told of one process."""

    def __init__(
        self, metrics: Metrics, readiness: Readiness, noted: Callable[[], Coroutine[Any, Any, Noted]]
    ) -> None:
        self._metrics = metrics
        self._readiness = readiness
        self._noted = noted

    async def metrics(self) -> bytes:
        """See ``Operated``."""
        return generate_latest(self._metrics.registry)

    async def state(self) -> State:
        """See ``Operated``."""
        return await self._readiness.state()

    async def noted(self) -> Noted:
        """See ``Operated``."""
        return await self._noted()


def told_of(
    metrics: Metrics,
    site: Site,
    clock: IReactorTime,
    cache: Cache | None,
    noted: Callable[[], Coroutine[Any, Any, Noted]],
) -> Told:
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
    return Told(metrics, Readiness(site, clock, cache.checks if cache else ()), noted)


async def noted(settings: Settings, upstreams: Upstreams, cache: Cache | None) -> Noted:
    """Return what is known of the upstreams of these settings, and of the cache.

    How much the cache holds is what was measured with the usage of each registry, so that both agree.
    """
    known = tuple(_upstream(name, settings, upstreams) for name in settings.upstreams)
    if cache is None:
        return Noted(known)
    usage = await cache.usage()
    held = cache.eviction.held if usage is None else usage.held
    return Noted(known, tuple(cache.under_way()), Held(held, cache.eviction.limit), usage=usage)


def _upstream(name: str, settings: Settings, upstreams: Upstreams) -> Upstream:
    of, outcomes = settings.upstreams[name], upstreams.of(name)
    addresses = tuple(outcomes.of(url).address for url in of.urls)
    host = settings.host(name)
    return Upstream(name, registry_names(of)[0], host, addresses, outcomes.rests, outcomes.quota)


def counted(settings: Settings, metrics: Metrics) -> Counted:
    """What counts requests by the hosts of these settings; all names of the mirror's own host are one."""
    own = dict.fromkeys((settings.domain, "localhost", *settings.names), settings.domain)
    virtual = {settings.host(name): settings.host(name) for name in settings.upstreams}
    return Counted({**virtual, **own}, settings.domain, metrics)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from its sources
        return "unknown"
