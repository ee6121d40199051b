"""Connections to an upstream: direct or through a proxy, over verified TLS."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

from attrs import Factory, evolve, field, frozen
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL.crypto import X509, X509Store
from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, Connection
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, ServiceID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import SSLError
from twisted.internet.interfaces import (
    IHostnameResolver,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.ssl import TLSVersion, optionsForClientTLS
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.client import URI, HostnameCachingHTTPSPolicy
from twisted.web.error import SchemeNotSupported
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from .addresses import AllowedAddresses
from .bounded_endpoint import BoundedEndpoint
from .checked_endpoint import CheckedAddressEndpoint, Dial, canonical_host
from .proxy import Proxy, ProxySettings
from .tunnel import TunnelEndpoint

_VERIFY_ERRORS = {
    9: "is not valid yet",
    10: "has expired",
    18: "is self-signed",
    19: "is signed by an untrusted authority",
    20: "is signed by an untrusted authority",
    21: "is signed by an untrusted authority",
}
"""Common results of OpenSSL's verification (``X509_V_ERR_…`` in x509_vfy.h), in words."""


class UntrustedError(Exception):
    """The certificate of a server is not trusted; the message says why."""


def make_tls_policy(trusted: bytes | None = None) -> IPolicyForHTTPS:
    """Return a policy for HTTP/1.1 over TLS 1.2 or later; it requires a trusted certificate with the host's
    name.

    :param trusted: further trusted certificates, in PEM.
    :raises ValueError: when there is no certificate in it.
    """
    authorities = load_pem_x509_certificates(trusted) if trusted is not None else []
    return HostnameCachingHTTPSPolicy(_TlsPolicy([X509.from_cryptography(ca) for ca in authorities]))


@implementer(IPolicyForHTTPS)
@frozen
class _TlsPolicy:
    authorities: Iterable[X509]

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        host = hostname.decode("ascii").removesuffix(".")
        literal = isIPAddress(host) or isIPv6Address(host)
        options = optionsForClientTLS(
            host,
            acceptableProtocols=[b"http/1.1"],
            extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_2},
        )
        return _VerifyingCreator(options, self.authorities, IPAddress_ID(host) if literal else DNS_ID(host))


@implementer(IOpenSSLClientConnectionCreator)
@frozen
class _VerifyingCreator:
    """Verifies in place of Twisted: Twisted 26.10 accepts a trusted certificate without names for any
    host.
    """

    options: IOpenSSLClientConnectionCreator
    authorities: Iterable[X509]
    identity: ServiceID

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> Connection:
        connection = self.options.clientConnectionForTLS(tlsProtocol)
        store = cast(X509Store, connection.get_context().get_cert_store())
        for authority in self.authorities:
            store.add_cert(authority)
        connection.set_verify(VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT, self._verify)
        return connection

    def _verify(
        self, connection: Connection, certificate: X509, error: int, depth: int, trusted: int
    ) -> bool:
        try:
            if not trusted:
                whose = "its certificate" if depth == 0 else "a certificate in its chain"
                raise UntrustedError(
                    f"{whose} {_VERIFY_ERRORS.get(error, f'fails verification (OpenSSL: {error})')}"
                )
            if depth == 0:
                verify_service_identity(extract_patterns(certificate), [self.identity], [])
        except (UntrustedError, VerificationError, CertificateError, ValueError):
            connection.get_app_data().failVerification(Failure())
            return False
        return True


# Hosts that a proxy must not look up, since it would find its own machine, or its cloud's metadata service:
# addresses in every form that ``inet_aton`` knows, and these names.
_ADDRESS_LITERAL = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)|.*:.*")
_LOCAL_NAME = re.compile(
    r"(.*\.)?localhost|metadata|metadata\.google\.internal|metadata\.goog|instance-data(\..*)?"
)


def _canonical_all(names: Iterable[str]) -> frozenset[str]:
    return frozenset(map(canonical_host, names))


@implementer(IAgentEndpointFactory)
@frozen
class UpstreamEndpoints:
    """The endpoints to which the ``Agent`` of one upstream connects.

    Connecting fails with ``AddressRefused``, or as Twisted's own endpoints do: with ``DNSLookupError`` or a
    ``ConnectError``, of which ``SSLError`` and ``TimeoutError`` include failed TLS handshakes, and
    ``ProxyError`` those of a proxy.  Headers that are too long fail the request with ``HeadersTooLong`` among
    its reasons.

    A pool knows its connections by scheme, host and port only: shared by two upstreams, it would lend to one
    a connection that only the other may make.  Each ``UpstreamEndpoints`` therefore needs a pool of its own.

    **Through a proxy that resolves names** an upstream's address is unknown to the mirror and cannot be
    checked: the proxy decides what may be reached.  Still checked, because the mirror resolves them itself,
    are literal addresses in all spellings, ``localhost``, the well-known names of metadata services, and
    ``fixed_names``.  A proxy that is sent addresses (``socks5``) gets them after they were checked.  The
    proxy itself may be at any address but a metadata service's: the operator named it.  TLS to an ``https``
    proxy is verified by the same policy as the upstream's.

    :ivar reactor: provides ``IReactorTCP`` and ``IReactorTime``.
    :ivar resolver: looks up the names of the upstream's servers, and that of the proxy.
    :ivar connect_timeout: seconds to resolve a name and to connect; as many again for a proxy to connect, and
        for TLS.
    :ivar on_dial: called with each host and each of its addresses that is about to be dialled, except for
        hosts whose names a proxy looks up.
    :ivar fixed_names: the names that the mirror looks up itself, even if there is a proxy.
    :ivar tcp: opens connections; by default the reactor.
    """

    reactor: Any
    resolver: IHostnameResolver
    tls: IPolicyForHTTPS
    addresses: AllowedAddresses
    connect_timeout: float = 10.0
    on_dial: Callable[[str, str], None] = lambda host, address: None
    proxies: ProxySettings = field(factory=ProxySettings)
    fixed_names: frozenset[str] = field(default=frozenset(), converter=_canonical_all)
    tcp: Any = field(default=Factory(lambda self: self.reactor, takes_self=True))

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        if uri.scheme not in (b"http", b"https"):
            raise SchemeNotSupported(f"Unsupported scheme: {uri.scheme!r}")
        scheme, host = uri.scheme.decode("ascii"), uri.host.decode("ascii")
        proxy = self.proxies.choose(scheme, host, uri.port)
        endpoint = (
            self._make_proxy_endpoint(proxy, host, uri.port)
            if proxy
            else self._make_checked_endpoint(host, uri.port, self._dial_tcp)
        )
        if scheme == "https":
            endpoint = _TlsEndpoint(self, host, uri.port, endpoint)
        return BoundedEndpoint(endpoint, host, self.connect_timeout, self.reactor)

    def _make_proxy_endpoint(self, proxy: Proxy, host: str, port: int) -> IStreamClientEndpoint:
        """Return an endpoint behind a proxy; one that is sent addresses may try several, in two steps
        each.
        """
        tunnel = partial(self._make_tunnel, proxy)
        if proxy.resolves_names and not self._is_looked_up_here(host):
            return tunnel(host, port)
        return evolve(self._make_checked_endpoint(host, port, tunnel), timeout=2 * self.connect_timeout)

    def _make_tunnel(self, proxy: Proxy, host: str, port: int) -> IStreamClientEndpoint:
        proxy_address = AllowedAddresses([], hosts=[proxy.host])
        endpoint: IStreamClientEndpoint = evolve(
            self._make_checked_endpoint(proxy.host, proxy.port, self._dial_tcp), addresses=proxy_address
        )
        if proxy.scheme == "https":
            endpoint = _TlsEndpoint(self, proxy.host, proxy.port, endpoint)
        return TunnelEndpoint(endpoint, proxy, host, port, self.connect_timeout, self.reactor)

    def _is_looked_up_here(self, host: str) -> bool:
        name = canonical_host(host)
        return bool(
            name in self.fixed_names or _ADDRESS_LITERAL.fullmatch(name) or _LOCAL_NAME.fullmatch(name)
        )

    def _make_checked_endpoint(self, host: str, port: int, dial: Dial) -> CheckedAddressEndpoint:
        return CheckedAddressEndpoint(
            host, port, self.resolver, self.addresses, dial, self.connect_timeout, self.reactor, self.on_dial
        )

    def _dial_tcp(self, address: str, port: int) -> IStreamClientEndpoint:
        family = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        tcp: IStreamClientEndpoint = family(self.tcp, address, port, self.connect_timeout)
        return tcp


@implementer(IStreamClientEndpoint)
@frozen
class _TlsEndpoint:
    """TLS over another endpoint; the policy is used only when a connection is made."""

    endpoints: UpstreamEndpoints
    host: str
    port: int
    endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        try:
            creator = self.endpoints.tls.creatorForNetloc(self.host.encode("ascii"), self.port)
        except ValueError as error:
            return fail(SSLError(string=f"no certificate can name {self.host}: {error}"))
        return wrapClientTLS(creator, self.endpoint, self.endpoints.reactor).connect(protocolFactory)
