"""The service assembled: the only place that chooses parts, and the only one that knows the reactor."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from twisted.application import strports
from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostnameResolver, IReactorTime
from twisted.python import usage
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.iweb import IAgent

from .config import ConfigurationError, Settings, UpstreamSettings, load
from .interfaces import IRegistry
from .names import Namespace, RedirectedNames, ShortNames
from .networks import networks
from .upstream.addresses import AllowedAddresses
from .upstream.anonymous import Anonymous
from .upstream.asking import Asking
from .upstream.client import Client, http_client
from .upstream.connect import Endpoints, threaded_resolver, tls_policy
from .upstream.realms import Realms
from .upstream.registry import Upstream
from .upstream.tokens import Handshake, Relay
from .web.access import Access
from .web.log import AccessLog, Write
from .web.own import OwnHost, Unchallenged
from .web.site import Gate, Host, Hosts, Routes
from .web.token import FORM_LIMIT, is_form
from .web.wire import Site
from .whole import Whole

AgentFor = Callable[[UpstreamSettings], IAgent]
CONNECTIONS = 64
"""How many connections to a host are kept for the next request; a pull opens many at once."""


class Options(usage.Options):
    """The command line of ``twistd dockmirror``: every option has a key of the same name in the file."""

    synopsis = "[options]"
    longdesc = "A mirror in front of every container registry."
    optParameters = [
        ["config", "c", None, "A TOML file of settings."],
        ["domain", "d", None, "The mirror's own host; each upstream is a host below it. Default: localhost."],
        ["hosts", None, None, "The pattern of virtual hosts. Default: {name}.{domain}."],
        ["default", None, None, "The upstream that every unknown host is."],
        ["grace", None, None, "Seconds for running transfers to finish at SIGTERM. Default: 300."],
        ["log-format", None, None, "text or json."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["listen"], self["upstream"], self["networks"] = [], [], []

    def opt_listen(self, endpoint: str) -> None:
        """A server endpoint, such as tcp:8080; repeatable. Default: port 8080 on all addresses."""
        self["listen"].append(endpoint)

    def opt_upstream(self, pair: str) -> None:
        """NAME=URL: adds an upstream, or replaces the url of one; repeatable."""
        self["upstream"].append(pair)

    def opt_networks(self, network: str) -> None:
        """Who may use the mirror: a CIDR, "private" (the default) or "public"; repeatable."""
        self["networks"].append(network)

    def postOptions(self) -> None:
        """:raises UsageError: when a setting cannot be."""
        given = {key.replace("-", "_"): value for key, value in self.items()}
        try:
            self.settings = load(given, os.environ)
        except ConfigurationError as error:
            raise usage.UsageError(str(error)) from None


def makeService(options: Options) -> IService:
    """The service of these options; called by twistd."""
    return mirror(options.settings)


def mirror(settings: Settings) -> MultiService:
    """Everything, ready to be started."""
    from twisted.internet import reactor

    clock: Any = reactor
    resolver = threaded_resolver(clock)
    service = MultiService()
    site = site_of(settings, clock, lambda upstream: _agent(upstream, resolver, clock), _write_line)
    Draining(site, settings.grace).setServiceParent(service)
    for endpoint in settings.listen or (_everywhere(),):
        strports.service(endpoint, site, reactor=clock).setServiceParent(service)
    return service


def site_of(settings: Settings, clock: IReactorTime, agent_for: AgentFor, write: Write) -> Site:
    """What listens.

    :param agent_for: makes what connects to the servers of one upstream.
    :param write: takes a line of the access log.
    """
    return Site(
        Gate(_hosts(settings, clock, agent_for), _access(settings)),
        clock,
        body_limit=lambda request: FORM_LIMIT if is_form(request) else 0,
        log=AccessLog(settings.log_format, clock, write),
    )


class Draining(Service):
    """Lets running transfers finish; the first of the services, and so the last that is told to stop."""

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


def _hosts(settings: Settings, clock: IReactorTime, agent_for: AgentFor) -> Hosts:
    """The virtual hosts, each a stack of one registry's, and the mirror's own in front of all of them."""
    hosts: dict[str, Host] = {}
    own: dict[str, IRegistry] = {}
    for name, upstream in settings.upstreams.items():
        names = registry_names(upstream)
        registry = _upstream(name, upstream, agent_for(upstream), clock)
        text = f"{upstream.url} is mirrored here: docker pull {settings.host(name)}/IMAGE\n"
        hosts[settings.host(name)] = Host(_virtual(registry, upstream, clock), text)
        anonymous = Unchallenged(_anonymous(registry, upstream, clock), names[0], settings.host(name))
        own = {**dict.fromkeys(names, anonymous), **own}
    root = Host(
        OwnHost(own, own["docker.io"]),
        _own_text(settings),
        below={n: Namespace(r, [n]) for n, r in own.items()},
    )
    for name in (settings.domain, "localhost", *settings.names):
        hosts[name] = root
    routes = Routes({settings.host(name): upstream.url for name, upstream in settings.upstreams.items()})
    return Hosts(hosts, root, hosts[settings.host(settings.default)] if settings.default else routes)


def registry_names(upstream: UpstreamSettings) -> list[str]:
    """What a registry is called, its canonical name first: as a path's part a port is joined by ``_``."""
    netloc = urlsplit(upstream.url).netloc
    canonical = upstream.registry or netloc.replace(":", "_")
    return list(dict.fromkeys([canonical, *upstream.aliases, *([] if upstream.registry else [netloc])]))


def _virtual(registry: IRegistry, upstream: UpstreamSettings, clock: IReactorTime) -> IRegistry:
    named = {"complete": ShortNames, "redirect": RedirectedNames}.get(upstream.short_names)
    whole: IRegistry = Whole(registry, clock)
    return Namespace(named(whole) if named else whole, registry_names(upstream))


def _anonymous(registry: IRegistry, upstream: UpstreamSettings, clock: IReactorTime) -> IRegistry:
    whole: IRegistry = Whole(Anonymous(registry, clock), clock)
    return whole if upstream.short_names == "off" else ShortNames(whole)


def _upstream(name: str, upstream: UpstreamSettings, agent: IAgent, clock: IReactorTime) -> Upstream:
    client = Client(http_client(agent), clock, name)
    handshake = Handshake(client, upstream.url, clock)
    relay = Relay(client, handshake, Realms(upstream.url, upstream.realms))
    return Upstream(client, Asking(upstream.url, client, handshake), handshake, relay)


def _agent(upstream: UpstreamSettings, resolver: IHostnameResolver, clock: Any) -> IAgent:
    """Connects with checks of its own, and keeps its connections: see ``Endpoints``."""
    host = urlsplit(upstream.url).hostname or ""
    addresses = AllowedAddresses([host], tuple(networks(upstream.allow_networks)))
    tls = tls_policy(str(upstream.ca_file) if upstream.ca_file else None)
    pool = HTTPConnectionPool(clock)
    pool.maxPersistentPerHost = CONNECTIONS
    endpoints = Endpoints(clock, resolver, tls, addresses)
    agent: IAgent = Agent.usingEndpointFactory(clock, endpoints, pool)
    return agent


def _own_text(settings: Settings) -> str:
    rows = "".join(
        f"{settings.host(name)}  {upstream.url}\n" for name, upstream in settings.upstreams.items()
    )
    return f"This is a mirror of container registries.\n\n{rows}"


def _everywhere() -> str:
    """One dual-stack socket where the machine has IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
    except OSError:
        return "tcp:8080"
    return "tcp:8080:interface=\\:\\:"


def _write_line(line: str) -> None:
    """To standard output itself: what Twisted puts in its place would prefix each line."""
    if sys.__stdout__ is not None:
        print(line, file=sys.__stdout__, flush=True)
