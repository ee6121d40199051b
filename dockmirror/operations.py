"""What the operators' endpoint tells, put together."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from prometheus_client.exposition import generate_latest
from twisted.internet.interfaces import IReactorTime

from .cache import Cache
from .metrics import Metrics
from .settings import Settings
from .web.counted import Counted
from .web.readiness import Readiness, State
from .web.wire import Site


class Told:
    """What is told of one process."""

    def __init__(self, metrics: Metrics, readiness: Readiness) -> None:
        self._metrics = metrics
        self._readiness = readiness

    async def metrics(self) -> bytes:
        """See ``Operated``."""
        return generate_latest(self._metrics.registry)

    async def state(self) -> State:
        """See ``Operated``."""
        return await self._readiness.state()


def told_of(metrics: Metrics, site: Site, clock: IReactorTime, cache: Cache | None) -> Told:
    """What is told of the site and the cache."""
    metrics.watch_connections(site.connections)
    if cache is not None:
        metrics.watch_cache(cache.eviction)
        metrics.watch_fetches(cache.fetched)
    metrics.tell_build(
        version=_version("dockmirror"), twisted=_version("twisted"), python=platform.python_version()
    )
    return Told(metrics, Readiness(site, clock, cache.try_writing if cache else None))


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
