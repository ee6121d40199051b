"""A process that serves clients, and the services that it consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from errno import EACCES, EADDRINUSE
from functools import partial
from random import random
from socket import gethostname
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from twisted.web.iweb import IAgent

from ..admission.sightings import PolledUpstream
from ..config.settings import ConfigurationError, Settings, UpstreamSettings
from ..history.database import FILE_NAME
from ..history.history_writer import HistoryBounds
from ..history.part_requests import add_up
from ..http.server import HttpSite
from ..oci.errors import summarize_error
from ..oci.request import Repository
from ..store.store_directory import UnusableDirectory
from ..store.warm_ups import TAG_REFRESHES
from ..system.external_program import run_process
from ..system.posix import LineWriter, raise_connection_limit
from ..system.reactor_services import ClockStepGuard, ReactorLagMonitor
from ..tls.certificate_directory import CertificateDirectories
from ..upstream.checked_endpoint import AddressCache, threaded_resolver
from ..web.shared_tables import SharedTables
from .accounts import REST, load_accounts
from .background_pulls import PinRefresh, WarmUpRunner, make_tag_polling
from .cache import CacheParts, open_cache
from .cache_settings import check_without_cache, client_regions, has_cache
from .cache_stack import StackContext
from .history import HistoryService, open_history
from .message_log import print_line
from .site_builder import ConnectionShare, SiteBuilder
from .sync_rules import SyncRule, SyncTurns, make_sync_rules
from .sync_runner import SyncContext, SyncRunner
from .telemetry import Telemetry, find_version, make_process_telemetry, read_worker_state
from .upstream_stack import make_agent


class OrderedMultiService(MultiService):
    """Services that stop one after the other, the one that was added last first."""

    def privilegedStartService(self) -> None:
        """:raises SystemExit: when a service cannot listen, in a line that names the setting."""
        Service.privilegedStartService(self)
        for service in self:
            try:
                service.privilegedStartService()
            except (CannotListenError, OSError, OverflowError) as error:
                message = summarize_error(error).rstrip(".")
                raise SystemExit(f"dockmirror: {service.name}: {message}{_hint(error)}") from None

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for service in reversed(list(self)):
            await maybeDeferred(service.stopService)


def _hint(error: Exception) -> str:
    """Return what to do about an address that cannot be used; the message names it."""
    cause = error.socketError if isinstance(error, CannotListenError) else error
    number = cause.errno if isinstance(cause, OSError) else None
    if number == EADDRINUSE or str(cause) == "Cannot acquire lock":  # of a UNIX socket
        return "; stop the program that uses it, or choose another one"
    is_port = isinstance(error, CannotListenError) and isinstance(error.port, int)
    if number == EACCES and is_port:
        return "; a port below 1024 needs root or the capability CAP_NET_BIND_SERVICE"
    return ""


class DrainConnections(Service):
    """Lets running transfers finish after the listeners have closed, and aborts them after a grace period."""

    def __init__(self, site: HttpSite, grace: float) -> None:
        self._site = site
        self._grace = grace

    def stopService(self) -> Deferred[int]:
        super().stopService()
        return self._site.connections.drain(self._grace)


class ThreadPoolService(Service):
    """Runs a thread pool; stopping it waits for its threads."""

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool

    def startService(self) -> None:
        super().startService()
        self._pool.start()

    def stopService(self) -> None:
        super().stopService()
        self._pool.stop()


class ServingProcess:
    """Everything that a serving process consists of, except its listeners.

    :param environ: may name proxies and hold passwords.
    :param memory: holds what clients were sent and asked for; worker processes share it.
    :param processes: the processes that share the connections which the settings allow.
    :raises ConfigurationError: when the settings cannot be put into force.
    :ivar service: starts before anything listens, and stops afterwards.
    :ivar site: the site that is to listen.
    :ivar certificates: the certificates of https listeners.
    :ivar telemetry: reports the metrics and the state.
    """

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        reactor: Any,
        memory: SharedTables,
        processes: int = 1,
    ) -> None:
        cache = _open_cache(settings, reactor)
        resolver = AddressCache(threaded_resolver(reactor), reactor)

        def agent_for(upstream: UpstreamSettings, reached: Callable[[str, str], None]) -> IAgent:
            return make_agent(upstream, resolver, environ, reached, reactor)

        telemetry = Telemetry.create(memory, reactor, settings.history is not None)
        passwords = ThreadPool(0, 2, "passwords")
        self._builder = SiteBuilder(
            StackContext(reactor, agent_for, telemetry, cache, open_history(settings, reactor)),
            partial(load_accounts, environ=environ, run=partial(run_process, reactor), clock=reactor),
            LineWriter("standard output", print_line).write,
            partial(deferToThreadPool, reactor, passwords),
            memory,
            ConnectionShare(raise_connection_limit(), processes),
        )
        self._builder.apply(settings)
        self.site = self._builder.site
        self.certificates = CertificateDirectories(
            settings.certificates, settings.domain, reactor, filled=settings.acme is not None
        )
        telemetry.metrics.expose_certificates(self._certificate_ends)
        self.telemetry = make_process_telemetry(
            telemetry.metrics,
            self.site,
            reactor,
            cache,
            lambda: read_worker_state(
                self._builder.settings, telemetry.upstreams, cache, self._certificate_ends()
            ),
        )
        self.service = OrderedMultiService()
        for service in self._make_services(settings, telemetry, cache, passwords, reactor):
            service.setServiceParent(self.service)

    def _make_services(
        self,
        settings: Settings,
        telemetry: Telemetry,
        cache: CacheParts | None,
        passwords: ThreadPool,
        reactor: Any,
    ) -> Iterator[Service]:
        """Yield the services in the order in which they start."""
        if telemetry.pulls is not None and settings.history is not None:
            bounds = HistoryBounds(settings.history_days, settings.history_size)
            detail, regions = settings.history_addresses, tuple(client_regions(settings))
            add_up_requests = partial(add_up, detail=detail, regions=regions)
            yield HistoryService(telemetry.pulls, settings.history, bounds, add_up_requests, reactor)
        yield ThreadPoolService(passwords)
        if cache is not None:
            yield cache.service
        yield ClockStepGuard(reactor)
        yield DrainConnections(self.site, settings.grace)
        yield ReactorLagMonitor(reactor, telemetry.metrics.lag.observe)
        if cache is None:
            return
        if cache.bucket is not None and telemetry.pulls is not None and settings.history is not None:
            from .fleet_bucket import FleetUploader

            file, version = settings.history / FILE_NAME, find_version("dockmirror")
            yield FleetUploader(file, gethostname(), version, cache.bucket, reactor, cache.in_thread)
        for make in (PinRefresh, WarmUpRunner, partial(WarmUpRunner, queue=TAG_REFRESHES)):
            yield make(cache.root, reactor, cache.in_thread, lambda: self._builder.registry)
        context = self._sync_context(cache, telemetry, reactor)
        yield SyncRunner(cache.root, reactor, cache.in_thread, context)
        yield make_tag_polling(cache, self._list_polled, reactor)

    def _sync_context(self, cache: CacheParts, telemetry: Telemetry, clock: IReactorTime) -> SyncContext:
        return SyncContext(
            rules=lambda: make_sync_rules(self._builder.settings),
            registry=lambda: self._builder.registry,
            account_of=self._account_of,
            quota=lambda upstream, account: telemetry.upstreams.of(upstream).quotas.get(account),
            turns=SyncTurns(cache.bucket, clock),
            draw=random,
        )

    def _account_of(self, rule: SyncRule, repository: Repository) -> str:
        stack = self._builder.stacks.get(rule.upstream)
        if stack is None:  # a reload has removed the upstream
            return REST
        return stack.choice.choose(Repository(repository.rest))

    def _list_polled(self) -> Mapping[str, PolledUpstream]:
        stacks = self._builder.stacks.items()
        return {name: stack.polled for name, stack in stacks if stack.polled is not None}

    async def apply(self, settings: Settings) -> None:
        """Put new settings into force; see ``SiteBuilder.apply``."""
        self._builder.apply(settings)
        self.certificates.set_default_domain(settings.domain)

    def _certificate_ends(self) -> Mapping[str, float]:
        """Return when each certificate expires; missing ones count as expired, so that alerts fire."""
        settings, ends = self._builder.settings, self.certificates.expiry_times()
        if settings.acme is None:
            return ends
        from .acme import missing_certificates

        return {**{str(path): 0.0 for path in missing_certificates(settings)}, **ends}


def _open_cache(settings: Settings, reactor: Any) -> CacheParts | None:
    if settings.cache is None or not has_cache(settings):
        check_without_cache(settings)
        return None
    try:
        return open_cache(settings.cache, settings, reactor)
    except UnusableDirectory as error:
        raise ConfigurationError(f"cache: {error}") from error
