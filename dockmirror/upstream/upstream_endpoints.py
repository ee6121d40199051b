"""Connections to an upstream: directly or through a proxy, over TLS that verifies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from attrs import Factory, evolve, field, frozen
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import SSLError
from twisted.internet.interfaces import (
    IHostnameResolver,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.web.client import URI
from twisted.web.error import SchemeNotSupported
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from .addresses import AllowedAddresses
from .bounded_endpoint import BoundedEndpoint
from .checked_endpoint import CheckedAddressEndpoint, Dial
from .proxy import Proxy
from .proxy_settings import ProxySettings
from .resolvers import canonical_host
from .tunnel import TunnelEndpoint

# What a proxy must not be asked to look up, since it would find the machine that it runs on, or its cloud's
# metadata service: addresses in every form that ``inet_aton`` knows, and these names.
_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)|.*:.*")
_OWN = re.compile(r"(.*\.)?localhost|metadata|metadata\.google\.internal|metadata\.goog|instance-data(\..*)?")


def _canonical_all(names: Iterable[str]) -> frozenset[str]:
    return frozenset(map(canonical_host, names))


@implementer(IAgentEndpointFactory)
@frozen
class UpstreamEndpoints:
    """Where the ``Agent`` of one upstream connects to.

    Connecting fails with ``AddressRefused``, or as Twisted's own endpoints do: with ``DNSLookupError`` or a
    ``ConnectError``, of which ``SSLError`` and ``TimeoutError`` tell of the TLS handshake as well, and
    ``ProxyError`` of a proxy.  Headers that are too long fail the request with ``HeadersTooLong`` among its
    reasons.

    A pool knows its connections by scheme, host and port only: shared by two upstreams, it would lend to one
    what only the other may connect to.  Each ``Endpoints`` therefore needs a pool of its own.

    **Through a proxy that is told names** an upstream's address is unknown here and cannot be judged: what a
    name resolves to is the proxy's affair, and so is what may be reached from where it stands.  Still judged,
    because they are looked up here, are literal addresses in all spellings, ``localhost``, the well-known
    names of metadata services, and ``fixed`` names.  A proxy that is told addresses (``socks5``) gets them
    after they were judged.  The proxy itself may be at any address but a metadata service's: the operator
    named it.  Over an ``https`` proxy TLS is verified by the same policy as the upstream's.

    :ivar reactor: provides ``IReactorTCP`` and ``IReactorTime``.
    :ivar resolver: looks up the names of the upstream's servers, and that of the proxy.
    :ivar connect_timeout: seconds to resolve a name and to connect; as many again for a proxy to connect, and
        for TLS.
    :ivar reached: told of each host and each of its addresses that is about to be connected to; of a host
        whose name a proxy looks up it is not told.
    :ivar fixed: the names that are looked up here whatever the proxy.
    :ivar tcp: opens connections, as the reactor does where it is not told.
    """

    reactor: Any
    resolver: IHostnameResolver
    tls: IPolicyForHTTPS
    addresses: AllowedAddresses
    connect_timeout: float = 10.0
    reached: Callable[[str, str], None] = lambda host, address: None
    proxies: ProxySettings = field(factory=ProxySettings)
    fixed: frozenset[str] = field(default=frozenset(), converter=_canonical_all)
    tcp: Any = field(default=Factory(lambda self: self.reactor, takes_self=True))

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See ``IAgentEndpointFactory``."""
        if uri.scheme not in (b"http", b"https"):
            raise SchemeNotSupported(f"Unsupported scheme: {uri.scheme!r}")
        scheme, host = uri.scheme.decode("ascii"), uri.host.decode("ascii")
        proxy = self.proxies.choose(scheme, host, uri.port)
        endpoint = self._proxied(proxy, host, uri.port) if proxy else self._checked(host, uri.port, self._tcp)
        if scheme == "https":
            endpoint = _TlsEndpoint(self, host, uri.port, endpoint)
        return BoundedEndpoint(endpoint, host, self.connect_timeout, self.reactor)

    def _proxied(self, proxy: Proxy, host: str, port: int) -> IStreamClientEndpoint:
        """A proxy that is given addresses may be asked for several, and each takes two steps."""
        tunnel = partial(self._tunnel, proxy)
        if proxy.is_told_names and not self._is_looked_up_here(host):
            return tunnel(host, port)
        return evolve(self._checked(host, port, tunnel), timeout=2 * self.connect_timeout)

    def _tunnel(self, proxy: Proxy, host: str, port: int) -> IStreamClientEndpoint:
        there = AllowedAddresses([], hosts=[proxy.host])
        endpoint: IStreamClientEndpoint = evolve(
            self._checked(proxy.host, proxy.port, self._tcp), addresses=there
        )
        if proxy.scheme == "https":
            endpoint = _TlsEndpoint(self, proxy.host, proxy.port, endpoint)
        return TunnelEndpoint(endpoint, proxy, host, port, self.connect_timeout, self.reactor)

    def _is_looked_up_here(self, host: str) -> bool:
        name = canonical_host(host)
        return bool(name in self.fixed or _NUMBER.fullmatch(name) or _OWN.fullmatch(name))

    def _checked(self, host: str, port: int, dial: Dial) -> CheckedAddressEndpoint:
        return CheckedAddressEndpoint(
            host, port, self.resolver, self.addresses, dial, self.connect_timeout, self.reactor, self.reached
        )

    def _tcp(self, address: str, port: int) -> IStreamClientEndpoint:
        family = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        tcp: IStreamClientEndpoint = family(self.tcp, address, port, self.connect_timeout)
        return tcp


@implementer(IStreamClientEndpoint)
@frozen
class _TlsEndpoint:
    """TLS over another endpoint; its policy is asked only when there is really something to connect."""

    to: UpstreamEndpoints
    host: str
    port: int
    endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See ``IStreamClientEndpoint``."""
        try:
            creator = self.to.tls.creatorForNetloc(self.host.encode("ascii"), self.port)
        except ValueError as error:
            return fail(SSLError(string=f"no certificate can name {self.host}: {error}"))
        return wrapClientTLS(creator, self.endpoint, self.to.reactor).connect(protocolFactory)
