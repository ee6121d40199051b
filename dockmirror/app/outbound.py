"""What connects to the servers of an upstream, as its operator would have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from attrs import evolve
from twisted.internet.interfaces import IHostnameResolver
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IAgent, IPolicyForHTTPS

from ..config.settings import ConfigurationError, UpstreamSettings
from ..system.networks import parse_networks
from ..upstream.addresses import AllowedAddresses
from ..upstream.concurrency_limit import ConcurrencyLimit
from ..upstream.early_response import UnpooledConnections, UploadAgent
from ..upstream.host_circuit_breaker import HostCircuitBreaker
from ..upstream.proxy import Proxy
from ..upstream.proxy_settings import ProxySettings
from ..upstream.raw_path_agent import RawPathAgent
from ..upstream.resolvers import FAMILIES, AddressFamilyResolver, FixedAddresses
from ..upstream.server_trust import tls_policy
from ..upstream.tcp import DrainingTCP
from ..upstream.upstream_endpoints import UpstreamEndpoints


def agent(
    upstream: UpstreamSettings,
    resolver: IHostnameResolver,
    environ: Mapping[str, str],
    reached: Callable[[str, str], None],
    reactor: Any,
) -> IAgent:
    """Connects with checks of its own and keeps its connections, as ``Endpoints`` asks for.

    :param environ: names the proxies of an upstream that names none itself.
    :param reached: see ``Endpoints``.
    :raises ConfigurationError: when a setting that looked right cannot be put into practice.
    """
    own = (urlsplit(upstream.url).hostname or "").removesuffix(".")
    endpoints = UpstreamEndpoints(
        reactor,
        FixedAddresses(AddressFamilyResolver(resolver, FAMILIES[upstream.ip]), upstream.addresses),
        _tls(upstream),
        AllowedAddresses(
            [upstream.url, *upstream.realms],
            tuple(parse_networks(upstream.allow_networks)),
            [host for host in upstream.addresses if host != own],
        ),
        upstream.connect_timeout,
        reached,
        proxies(upstream, environ),
        frozenset(upstream.addresses),
    )
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = upstream.connections
    kept = RawPathAgent.usingEndpointFactory(reactor, endpoints, pool)
    draining = evolve(endpoints, tcp=DrainingTCP(reactor))
    sending = RawPathAgent.usingEndpointFactory(reactor, draining, UnpooledConnections(reactor))
    return ConcurrencyLimit(
        HostCircuitBreaker(UploadAgent(kept, sending), reactor), upstream.connections, reactor
    )


def _tls(upstream: UpstreamSettings) -> IPolicyForHTTPS:
    try:
        return tls_policy(str(upstream.ca_file) if upstream.ca_file else None)
    except (ValueError, OSError) as error:
        raise ConfigurationError(
            f"ca_file: expected PEM certificates in {upstream.ca_file}: {error}"
        ) from error


def proxies(upstream: UpstreamSettings, environ: Mapping[str, str]) -> ProxySettings:
    """The proxies that lead to an upstream.

    :raises ConfigurationError: when one is named that is none.
    """
    try:
        if upstream.proxy is None:
            return ProxySettings.parse(environ)
        proxy = Proxy.parse(upstream.proxy) if upstream.proxy else None
        return ProxySettings(proxy, proxy)
    except ValueError as error:
        raise ConfigurationError(f"proxy: {error}") from error
