"""The service assembled: the only place that chooses parts, and the only one that knows the reactor."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IAgent

from .cache import Cache, open_cache
from .interfaces import IRegistry
from .lag import Lag
from .listeners import everywhere, listener
from .metrics import Metrics
from .names import Namespace
from .networks import networks
from .oci.credentials import Credentials
from .offered import registry_names
from .operations import counted, operations_of
from .options import Options as Options
from .outbound import agent
from .passwords import own_credentials
from .settings import ConfigurationError, Settings, UpstreamSettings
from .stack import AgentFor, stack
from .store.directory import UnfitDirectory
from .upstream.resolvers import threaded_resolver
from .web.access import Access
from .web.exchange import Request
from .web.log import AccessLog, Write
from .web.operations import BesideHealth
from .web.own import OwnHost
from .web.site import Gate, Host, Hosts, Routes
from .web.token import FORM_LIMIT, is_form
from .web.wire import Site


def makeService(options: Options) -> IService:
    """The service of these options; called by twistd, which has no better way to say what is wrong by now."""
    try:
        return mirror(options.settings, options.environ)
    except ConfigurationError as error:
        raise SystemExit(f"dockmirror: {error}") from None


def mirror(settings: Settings, environ: Mapping[str, str]) -> MultiService:
    """Everything, ready to be started.

    :param environ: in which proxies may be named, and passwords given.
    :raises ConfigurationError: when a setting that looked right cannot be put into practice.
    """
    from twisted.internet import reactor

    clock: Any = reactor
    credentials = own_credentials(settings, environ)
    resolver = threaded_resolver(clock)
    service = InOrder()
    cache = _cache(settings, clock)
    if cache is not None:
        cache.service.setServiceParent(service)

    def agent_for(upstream: UpstreamSettings, reached: Callable[[str, str], None]) -> IAgent:
        return agent(upstream, resolver, environ, reached, clock)

    metrics = Metrics(CollectorRegistry())
    site = site_of(settings, clock, agent_for, _write_line, cache, metrics, credentials)
    if settings.operations:
        told = operations_of(metrics, site, clock, cache)
        listener("operations", settings.operations, told, clock).setServiceParent(service)
        Lag(clock, metrics.lag.observe).setServiceParent(service)
    Draining(site, settings.grace).setServiceParent(service)
    for number, endpoint in enumerate(settings.listen or (everywhere(),)):
        listener(f"listen.{number}", endpoint, site, clock).setServiceParent(service)
    return service


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


def site_of(
    settings: Settings,
    clock: IReactorTime,
    agent_for: AgentFor,
    write: Write,
    cache: Cache | None,
    metrics: Metrics,
    credentials: Mapping[str, Credentials] | None = None,
) -> Site:
    """What listens.

    :param write: takes a line of the access log.
    :param cache: where what is fetched is kept; without one the mirror is a relay.
    :param credentials: the mirror's own, by the name of the upstream.
    """
    write_down, count = AccessLog(settings.log_format, clock, write), counted(settings, metrics)

    def log(request: Request) -> None:
        write_down(request)
        count(request)

    gate = Gate(_hosts(settings, clock, agent_for, cache, metrics, credentials or {}), _access(settings))
    return Site(
        BesideHealth(gate), clock, body_limit=lambda request: FORM_LIMIT if is_form(request) else 0, log=log
    )


class Draining(Service):
    """Lets running transfers finish, once nothing listens any more."""

    def __init__(self, site: Site, grace: float) -> None:
        self._site = site
        self._grace = grace

    def stopService(self) -> Deferred[int]:
        """Fires when no connection is left, at the latest after the grace."""
        super().stopService()
        return self._site.connections.drain(self._grace)


def _access(settings: Settings) -> Access:
    proxies = [name for name in settings.trust_proxy if name != "unix"]
    return Access(
        tuple(networks(settings.networks)), tuple(networks(proxies)), unix="unix" in settings.trust_proxy
    )


def _hosts(
    settings: Settings,
    clock: IReactorTime,
    agent_for: AgentFor,
    cache: Cache | None,
    metrics: Metrics,
    credentials: Mapping[str, Credentials],
) -> Hosts:
    """The virtual hosts, each a stack of one registry's, and the mirror's own in front of all of them."""
    hosts: dict[str, Host] = {}
    own: dict[str, IRegistry] = {}
    for name, upstream in settings.upstreams.items():
        served = stack(name, upstream, settings, agent_for, clock, cache, metrics, credentials.get(name))
        text = f"{upstream.url} is mirrored here: docker pull {settings.host(name)}/IMAGE\n"
        hosts[settings.host(name)] = Host(served.virtual, text)
        own = {**dict.fromkeys(registry_names(upstream), served.own), **own}
    root = Host(
        OwnHost(own, own["docker.io"]),
        _own_text(settings),
        below={
            name: Namespace(it, [n for n, other in own.items() if other is it]) for name, it in own.items()
        },
    )
    for name in (settings.domain, "localhost", *settings.names):
        hosts[name] = root
    routes = Routes({settings.host(name): upstream.url for name, upstream in settings.upstreams.items()})
    return Hosts(hosts, root, hosts[settings.host(settings.default)] if settings.default else routes)


def _own_text(settings: Settings) -> str:
    rows = "".join(
        f"{settings.host(name)}  {upstream.url}\n" for name, upstream in settings.upstreams.items()
    )
    return f"This is a mirror of container registries.\n\n{rows}"


def _write_line(line: str) -> None:
    """To standard output itself: what Twisted puts in its place would prefix each line."""
    if sys.__stdout__ is not None:
        print(line, file=sys.__stdout__, flush=True)
