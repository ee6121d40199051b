"""A process that serves, put together."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from twisted.web.iweb import IAgent

from ..config.settings import ConfigurationError, Settings, UpstreamSettings
from ..http.server import HttpSite
from ..store.store_directory import UnusableDirectory
from ..system.clock_step_guard import ClockStepGuard
from ..system.connection_limit import raise_connection_limit
from ..system.external_program import run_process
from ..system.line_writer import LineWriter, write_line
from ..system.reactor_lag import ReactorLagMonitor
from ..tls.certificate_directories import CertificateDirectories
from ..upstream.resolvers import threaded_resolver
from ..web.shared_tables import SharedTables
from .cache import CacheParts, has_cache, open_cache
from .certificate_names import lacking
from .outbound import agent
from .pin_refresh import PinRefresh
from .process_telemetry import noted, told_of
from .services import DrainConnections, OrderedMultiService, ThreadPoolService
from .site_builder import SiteBuilder
from .telemetry import Telemetry


class ServingProcess:
    """All that a process has that serves, but for what it listens on.

    :param environ: in which proxies may be named, and passwords given.
    :param memory: of what clients have had and asked for; processes that serve as one share it.
    :param share: how many processes share the connections that there may be.
    :raises ConfigurationError: when a setting that looked right cannot be put into practice.
    :ivar service: what is to be started before anything listens, and stopped after.
    :ivar certificates: what it shows to those who come by https.
    :ivar told: what is told of it.
    """

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        reactor: Any,
        memory: SharedTables,
        share: int = 1,
    ) -> None:
        self.service = OrderedMultiService()
        passwords = ThreadPool(0, 2, "passwords")
        ThreadPoolService(passwords).setServiceParent(self.service)
        cache = _cache(settings, reactor)
        if cache is not None:
            cache.service.setServiceParent(self.service)
        resolver = threaded_resolver(reactor)

        def agent_for(upstream: UpstreamSettings, reached: Callable[[str, str], None]) -> IAgent:
            return agent(upstream, resolver, environ, reached, reactor)

        watched = Telemetry.of(memory, reactor)
        metrics = watched.metrics
        self._serving = SiteBuilder(
            reactor, agent_for, LineWriter("standard output", _print).write, cache, watched, environ,
            partial(deferToThreadPool, reactor, passwords), partial(run_process, reactor), memory,
            raise_connection_limit(), share,
        )  # fmt: skip
        self._serving.serve(settings)
        self.certificates = CertificateDirectories(
            settings.certificates, settings.domain, reactor, filled=settings.acme is not None
        )
        metrics.watch_certificates(self._ends)
        self.told = told_of(
            metrics,
            self.site,
            reactor,
            cache,
            lambda: noted(self._serving.settings, watched.upstreams, cache),
        )
        ReactorLagMonitor(reactor, metrics.lag.observe).setServiceParent(self.service)
        ClockStepGuard(reactor).setServiceParent(self.service)
        DrainConnections(self.site, settings.grace).setServiceParent(self.service)
        if cache is not None and settings.cache is not None:
            refreshing = PinRefresh(settings.cache, reactor, cache.in_thread, lambda: self._serving.registry)
            refreshing.setServiceParent(self.service)

    @property
    def site(self) -> HttpSite:
        """What is to listen."""
        return self._serving.site

    async def serve(self, settings: Settings) -> None:
        """See ``SiteBuilder.serve``."""
        self._serving.serve(settings)
        self.certificates.prefer(settings.domain)

    def _ends(self) -> Mapping[str, float]:
        """One that is lacking has ended long ago: so that who watches for ends is told of it, too."""
        return {**{str(path): 0.0 for path in lacking(self._serving.settings)}, **self.certificates.ends()}


def _cache(settings: Settings, reactor: Any) -> CacheParts | None:
    if settings.cache is None or not has_cache(settings):
        if settings.store is not None:
            raise ConfigurationError("store: expected a cache_size: what is uploaded comes to the disk first")
        return None
    try:
        return open_cache(settings.cache, settings, reactor)
    except UnusableDirectory as error:
        raise ConfigurationError(f"cache: {error}") from error


def _print(line: str) -> None:
    """To standard output itself: what Twisted puts in its place would prefix each line."""
    if sys.__stdout__ is not None:
        write_line(sys.__stdout__, line)
