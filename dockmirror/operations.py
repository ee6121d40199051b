"""What the operators' endpoint tells, put together."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from twisted.internet.interfaces import IReactorTime

from .cache import Cache
from .metrics import Metrics
from .settings import Settings
from .web.counted import Counted
from .web.operations import Operations
from .web.readiness import Readiness
from .web.wire import Site


def operations_of(metrics: Metrics, site: Site, clock: IReactorTime, cache: Cache | None) -> Site:
    """What listens there, and tells of the site and the cache."""
    metrics.watch_connections(site.connections)
    if cache is not None:
        metrics.watch_cache(cache.eviction)
    metrics.tell_build(
        version=_version("dockmirror"), twisted=_version("twisted"), python=platform.python_version()
    )
    readiness = Readiness(site, clock, cache.try_writing if cache else None)
    return Site(Operations(metrics.registry, readiness), clock)


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
