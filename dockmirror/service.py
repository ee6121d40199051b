"""The service assembled: the only place that chooses parts, and the only one that knows the reactor."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from twisted.web.iweb import IAgent

from .cache import Cache, open_cache
from .descriptors import connections
from .lag import Lag
from .listeners import everywhere, listener
from .metrics import Metrics
from .operations import operations_of
from .options import Options as Options
from .outbound import agent
from .process import ask
from .reloading import Reloading
from .serving import Serving
from .settings import ConfigurationError, Settings, UpstreamSettings
from .store.directory import UnfitDirectory
from .upstream.resolvers import threaded_resolver
from .web.wire import Site


def makeService(options: Options) -> IService:
    """The service of these options; called by twistd, which has no better way to say what is wrong by now."""
    try:
        return mirror(options.read, options.environ)
    except ConfigurationError as error:
        raise SystemExit(f"dockmirror: {error}") from None


def mirror(read: Callable[[], Settings], environ: Mapping[str, str]) -> MultiService:
    """Everything, ready to be started.

    :param read: gives the settings, now and again at each SIGHUP.
    :param environ: in which proxies may be named and passwords given, and in which credential helpers run.
    :raises ConfigurationError: when the settings are wrong, or cannot be put into practice.
    """
    from twisted.internet import reactor

    clock: Any = reactor
    settings = read()
    service = InOrder()
    passwords = ThreadPool(0, 2, "passwords")
    Threads(passwords).setServiceParent(service)
    cache = _cache(settings, clock)
    if cache is not None:
        cache.service.setServiceParent(service)
    resolver = threaded_resolver(clock)

    def agent_for(upstream: UpstreamSettings, reached: Callable[[str, str], None]) -> IAgent:
        return agent(upstream, resolver, environ, reached, clock)

    metrics = Metrics(CollectorRegistry())
    in_thread = partial(deferToThreadPool, clock, passwords)
    serving = Serving(
        clock, agent_for, _write_line, cache, metrics, environ, in_thread, partial(ask, clock), connections()
    )
    serving.serve(settings)
    site = serving.site
    if settings.operations:
        told = operations_of(metrics, site, clock, cache)
        listener("operations", settings.operations, told, clock).setServiceParent(service)
        Lag(clock, metrics.lag.observe).setServiceParent(service)
    Draining(site, settings.grace).setServiceParent(service)
    Reloading(settings, read, serving.serve, clock).setServiceParent(service)
    for number, endpoint in enumerate(settings.listen or (everywhere(),)):
        listener(f"listen.{number}", endpoint, site, clock).setServiceParent(service)
    return service


class Threads(Service):
    """Threads that are there as long as the service runs."""

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool

    def startService(self) -> None:
        """Called when the reactor is about to run."""
        super().startService()
        self._pool.start()

    def stopService(self) -> None:
        """Returns when none is at work any more."""
        super().stopService()
        self._pool.stop()


class InOrder(MultiService):
    """Services of which each stops when all that came after it have."""

    def privilegedStartService(self) -> None:
        """:raises SystemExit: when one of them cannot listen, in a line that names the setting."""
        Service.privilegedStartService(self)
        for service in self:
            try:
                service.privilegedStartService()
            except (CannotListenError, OSError) as error:
                raise SystemExit(f"dockmirror: {service.name}: {error}") from None

    def stopService(self) -> Deferred[None]:
        """Fires when the first has stopped."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for service in reversed(list(self)):
            await maybeDeferred(service.stopService)


def _cache(settings: Settings, reactor: Any) -> Cache | None:
    if settings.cache is None or (settings.cache_size is not None and not settings.cache_size):
        return None
    try:
        return open_cache(settings.cache, settings, reactor)
    except UnfitDirectory as error:
        raise ConfigurationError(f"cache: {error}") from error


class Draining(Service):
    """Lets running transfers finish, once nothing listens any more."""

    def __init__(self, site: Site, grace: float) -> None:
        self._site = site
        self._grace = grace

    def stopService(self) -> Deferred[int]:
        """Fires when no connection is left, at the latest after the grace."""
        super().stopService()
        return self._site.connections.drain(self._grace)


def _write_line(line: str) -> None:
    """To standard output itself: what Twisted puts in its place would prefix each line."""
    if sys.__stdout__ is not None:
        print(line, file=sys.__stdout__, flush=True)
