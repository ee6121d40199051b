"""One upstream as the mirror asks it: its accounts, its connections, and the registries at its addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from attrs import evolve, field, frozen
from twisted.internet.interfaces import IHostnameResolver, IReactorTime
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IAgent, IPolicyForHTTPS

from ..config.settings import ConfigurationError, Settings, UpstreamSettings
from ..interfaces import IRegistry, IUpstream, IWritableRegistry
from ..metrics import Metrics
from ..middleware.failover import (
    CorruptBlobQuarantine,
    Failover,
    FallbackMirror,
    UpstreamAddress,
    UpstreamFailover,
    UpstreamFallback,
    can_use_fallback,
)
from ..middleware.names import NameRewrite, PrefixedUpstream, WriteNameRewrite, add_prefix
from ..middleware.observers import AccountObserver, UpstreamObserver, WriteMetrics
from ..middleware.peers import PATIENCE, STALL_TIMEOUT, Peer
from ..middleware.token_registry import AccountRouter, TokenRegistry
from ..oci.errors import NameInvalid
from ..oci.request import RegistryRequest, Repository
from ..oci.token import Credentials
from ..status import UpstreamHealth
from ..system.networks import parse_networks
from ..upstream.addresses import AllowedAddresses, PrivateAddressDetector
from ..upstream.agents import (
    AccountGuard,
    ConcurrencyLimit,
    HostAgent,
    HostCircuitBreaker,
    IdentityEncodingAgent,
    InstrumentedAgent,
    LoopMarkingAgent,
    RawPathAgent,
    UploadAgent,
    make_http_client,
)
from ..upstream.checked_endpoint import FAMILIES, AddressFamilyResolver, FixedAddresses
from ..upstream.proxy import Proxy, ProxySettings
from ..upstream.registry_client import (
    ChallengeCache,
    RegistryClient,
    TokenRelay,
    TrustedRealms,
    request_headers,
)
from ..upstream.registry_writer import LocationSigner, RegistryWriter
from ..upstream.upload_client import DrainingTCP, UnpooledConnections, UploadClient
from ..upstream.upstream_client import Header, UpstreamClient
from ..upstream.upstream_endpoints import UpstreamEndpoints, make_tls_policy
from ..upstream.upstream_registry import BlobSizes, UpstreamRegistry
from ..upstream.upstream_responses import AUTHORIZATION
from .accounts import REST, AccountChoice, Accounts, describe_account
from .naming import name_for_clients

_PEER_CONNECT_TIMEOUT = 2.0
"""Seconds; a peer is near."""
_PEER_USER = "dockmirror"
"""The user that the audit log of a peer names, if it requires logins."""
AgentFor = Callable[[UpstreamSettings, Callable[[str, str], None]], IAgent]
"""Makes the agent of one upstream; the agent reports the host and address of each connection it makes."""


@frozen
class UpstreamContext:
    """Everything that the registries of one upstream are made of.

    :ivar name: its name in the settings.
    :ivar accounts: the mirror's own accounts there.
    :ivar signing_keys: the keys of ``LocationSigner``, for an upstream that accepts pushes, and of the tokens
        by which peers log in to each other.
    :ivar mirror_id: the mirror's identifier in ``CDN-Loop``.
    """

    name: str
    settings: UpstreamSettings
    agent_for: AgentFor
    clock: IReactorTime
    metrics: Metrics
    health: UpstreamHealth
    accounts: Accounts = field(factory=dict)
    signing_keys: Sequence[bytes] = ()
    mirror_id: str = ""
    choice: AccountChoice = field(init=False)

    @choice.default
    def _choose_by_settings(self) -> AccountChoice:
        return AccountChoice(self.name, self.settings)


@frozen
class UpstreamParts:
    """The registries of one upstream.

    :ivar relayed: asks with the clients' own credentials.
    :ivar authorized: asks with the mirror's own tokens.
    :ivar detectors: one for each address at which the registry itself answers.
    :ivar breaker_key: groups the requests that fail together, for ``RequestCircuitBreaker``.
    :ivar writes: pushes to the first address with the clients' credentials; None if read-only.
    """

    relayed: IUpstream
    authorized: IRegistry
    detectors: Sequence[PrivateAddressDetector]
    breaker_key: Callable[[RegistryRequest], object] = lambda _: None
    writes: IWritableRegistry | None = None

    def may_mark_public(self, context: UpstreamContext, repository: Repository) -> bool:
        """Return whether an anonymous answer makes content of a repository public.

        All clients share an account of the mirror's own, so what it may read counts as public among them.
        """
        stated = context.settings.public
        is_public = not any(each.is_private for each in self.detectors) if stated is None else stated
        return is_public or context.choice.has_account(repository)


@frozen
class _ConnectedAddress:
    """One address of an upstream, with the connections that all accounts share.

    :ivar settings: the upstream's, with this address only.
    :ivar is_fallback: True if it is another registry, which is sent anonymous tokens only.
    """

    settings: UpstreamSettings
    agent: IAgent
    is_fallback: bool


def make_upstream(context: UpstreamContext) -> UpstreamParts:
    """Make the registries of an upstream at all of its addresses.

    The mirror's accounts and the clients' credentials go only to addresses of the same registry: the first
    one, and its replicas.
    """
    settings, clock = context.settings, context.clock
    detectors = [PrivateAddressDetector(urlsplit(url).hostname or "") for url in settings.urls]
    addresses = [
        _ConnectedAddress(address, _connect(context, address, detector), number > 0 and not settings.replicas)
        for number, (address, detector) in enumerate(zip(settings.by_address(), detectors, strict=True))
    ]
    made = [_make_registry(context, REST, address) for address in addresses]
    first, *others = registries = [registry for registry, _ in made]
    fallbacks = [] if settings.replicas else [TokenRegistry(other, clock) for other in others]

    def authorize(account: str, upstreams: Sequence[IUpstream]) -> IRegistry:
        own = [
            _authorize(context, account, upstream, address)
            for upstream, address in zip(upstreams, addresses, strict=False)
        ]
        if fallbacks:
            return FallbackMirror(own[0], fallbacks, clock)
        return Failover(own, clock) if own[1:] else own[0]

    same = len(addresses) if settings.replicas else 1
    authorized = authorize(REST, registries[:same])
    if context.choice.names:
        by_account = {
            name: authorize(name, [_make_registry(context, name, each)[0] for each in addresses[:same]])
            for name in context.choice.names
        }
        authorized = AccountRouter({REST: authorized, **by_account}, context.choice.choose_for)
    writes = made[0][1]
    if not others:
        return UpstreamParts(first, authorized, detectors, writes=writes)
    if settings.replicas:
        return UpstreamParts(UpstreamFailover(registries, clock), authorized, detectors, writes=writes)
    return UpstreamParts(
        UpstreamFallback(first, fallbacks, clock), authorized, detectors[:1], can_use_fallback, writes
    )


def _authorize(
    context: UpstreamContext, account: str, upstream: IUpstream, address: _ConnectedAddress
) -> TokenRegistry:
    """Return the registry at an address, asked with one of the mirror's accounts, or anonymously."""
    name, login = context.name, context.accounts.get(account)
    if login is None:
        return TokenRegistry(upstream, context.clock)
    words = describe_account(name, account, context.settings)
    refused = AccountObserver(name, words, context.metrics, context.health.of(address.settings.url))
    return TokenRegistry(upstream, context.clock, login, refused)


def _connect(
    context: UpstreamContext, settings: UpstreamSettings, reached: Callable[[str, str], None]
) -> IAgent:
    with upstream_errors(f"upstreams.{context.name}", settings):
        return context.agent_for(settings, reached)


def make_peers(context: UpstreamContext, settings: Settings) -> Sequence[Peer]:
    """Return the fleet's mirrors; none in a process that serves no clients, which is no mirror of a fleet."""
    return [_make_peer(each, context, settings) for each in settings.peers] if context.mirror_id else ()


def _make_peer(address: str, context: UpstreamContext, settings: Settings) -> Peer:
    """Make the registries of one peer; both of its hosts share the connections."""
    upstream, clock = context.settings, context.clock
    connection = peer_connection(address, upstream.connections)
    agent = LoopMarkingAgent(
        context.agent_for(connection, lambda *_: None), context.mirror_id, asks_peer=True
    )
    headers = _peer_headers(context, settings)

    def ask(host: str, rename: Callable[[Repository], Repository]) -> UpstreamAddress:
        http, name = make_http_client(HostAgent(agent, address, host)), f"{context.name}, from a peer"
        client = UpstreamClient(http, clock, name, address, idle_timeout=STALL_TIMEOUT)
        challenges = ChallengeCache(client, address, clock)
        relay = TokenRelay(client, challenges, TrustedRealms(address, ()))
        requests = RegistryClient(address, client, challenges, clock, headers)
        registry = UpstreamRegistry(client, requests, challenges, relay, BlobSizes(clock))
        return UpstreamAddress(NameRewrite(registry, rename), clock, PATIENCE)

    def count(outcome: str) -> None:
        context.metrics.peer_requests.labels(address, outcome).inc()

    return Peer(
        address,
        ask(settings.domain, lambda each: add_prefix(upstream.canonical, name_for_clients(upstream, each))),
        ask(settings.host(context.name), partial(name_for_clients, upstream)),
        upstream.canonical,
        count,
        clock,
    )


def peer_connection(address: str, connections: int = 1) -> UpstreamSettings:
    """Return the settings by which a peer is connected to: without a proxy."""
    return UpstreamSettings.model_validate(
        {
            "url": address,
            "proxy": "",
            "connections": connections,
            "connect_timeout": _PEER_CONNECT_TIMEOUT,
        }
    )


def _peer_headers(
    context: UpstreamContext, settings: Settings
) -> Callable[[RegistryRequest], Iterable[Header]]:
    """Return the headers of requests to peers: with a login, if the mirrors require it, by a token.

    The keys that the mirrors share sign it.
    """
    if settings.access.htpasswd is None:
        return request_headers
    from ..users import UserTokens

    tokens = UserTokens(context.signing_keys, context.clock)

    def add_login(request: RegistryRequest) -> Iterator[Header]:
        yield from request_headers(request)
        yield AUTHORIZATION, Credentials.bearer(tokens.issue(_PEER_USER)).header

    return add_login


def _make_registry(
    context: UpstreamContext, account: str, address: _ConnectedAddress
) -> tuple[IUpstream, IWritableRegistry | None]:
    """Make the registry at one address for one account, with a challenge and tokens of its own."""
    name, clock, metrics, settings = context.name, context.clock, context.metrics, address.settings
    url, prefix = settings.origin, settings.prefix

    connections = address.agent
    if context.mirror_id:
        connections = LoopMarkingAgent(connections, context.mirror_id)
    if context.choice.names and not address.is_fallback:
        connections = AccountGuard(connections, url, partial(_is_own, context.choice, account, prefix))
    quotas = partial(context.health.record_quota, account)
    agent = InstrumentedAgent(connections, (name, account), metrics, clock, quotas)
    client = UpstreamClient(make_http_client(agent), clock, name, url, settings.timeout)
    challenges = ChallengeCache(client, url, clock)
    relay = TokenRelay(client, challenges, TrustedRealms(url, settings.realms))
    requests = RegistryClient(url, client, challenges, clock)
    upstream: IUpstream = UpstreamRegistry(client, requests, challenges, relay, BlobSizes(clock))
    if prefix:
        upstream = PrefixedUpstream(upstream, prefix)
    observed = UpstreamObserver(upstream, name, metrics, context.health.of(settings.url))
    registry = CorruptBlobQuarantine(observed, clock)
    if not settings.writes:
        return registry, None
    uploads = UploadClient(
        IdentityEncodingAgent(agent), client, clock, settings.timeout, metrics.pushed_bytes.labels(name).inc
    )
    signer = LocationSigner(context.signing_keys, name)
    writer: IWritableRegistry = RegistryWriter(url, client, uploads, challenges, signer)
    if prefix:
        writer = WriteNameRewrite(writer, partial(add_prefix, prefix))
    return registry, WriteMetrics(writer, name, metrics)


def _is_own(choice: AccountChoice, account: str, prefix: str, name: str) -> bool:
    """Return whether an account is for a repository, whose name at the upstream may be invalid.

    :param prefix: the path of the upstream's URL.
    """
    inner = name.removeprefix(f"{prefix}/") if prefix else name
    try:
        return choice.choose(Repository.parse(inner)) == account and (not prefix or inner != name)
    except NameInvalid:
        return False


@contextmanager
def upstream_errors(table: str, upstream: UpstreamSettings) -> Iterator[None]:
    """Add the place of the setting to the errors of ``make_agent``: its table, or the environment."""
    try:
        yield
    except ConfigurationError as error:
        is_from_environment = str(error).startswith("proxy: ") and upstream.proxy is None
        place = "the environment: " if is_from_environment else f"{table}."
        raise ConfigurationError(f"{place}{error}") from None


def make_agent(
    upstream: UpstreamSettings,
    resolver: IHostnameResolver,
    environ: Mapping[str, str],
    reached: Callable[[str, str], None],
    reactor: Any,
) -> IAgent:
    """Return an agent that connects to one upstream, checks the addresses, and keeps connections open.

    :param environ: names the proxies of an upstream whose settings name none.
    :param reached: receives the host and address of each connection.
    :raises ConfigurationError: when the CA bundle or the proxy is invalid.
    """
    own = (urlsplit(upstream.url).hostname or "").removesuffix(".")
    endpoints = UpstreamEndpoints(
        reactor=reactor,
        resolver=FixedAddresses(AddressFamilyResolver(resolver, FAMILIES[upstream.ip]), upstream.addresses),
        tls=_tls_policy(upstream),
        addresses=AllowedAddresses(
            [upstream.url, *upstream.realms],
            tuple(parse_networks(upstream.allow_networks)),
            [host for host in upstream.addresses if host != own],
        ),
        connect_timeout=upstream.connect_timeout,
        on_dial=reached,
        proxies=parse_proxies(upstream, environ),
        fixed_names=frozenset(upstream.addresses),
    )
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = upstream.connections
    pooled = RawPathAgent.usingEndpointFactory(reactor, endpoints, pool)
    draining = evolve(endpoints, tcp=DrainingTCP(reactor))
    unpooled = RawPathAgent.usingEndpointFactory(reactor, draining, UnpooledConnections(reactor))
    return ConcurrencyLimit(
        HostCircuitBreaker(UploadAgent(pooled, unpooled), reactor), upstream.connections, reactor
    )


def _tls_policy(upstream: UpstreamSettings) -> IPolicyForHTTPS:
    try:
        return make_tls_policy(upstream.ca_file.read_once() if upstream.ca_file else None)
    except (ValueError, OSError) as error:
        raise ConfigurationError(
            f"ca_file: expected PEM certificates in {upstream.ca_file}: {error}"
        ) from error


def parse_proxies(upstream: UpstreamSettings, environ: Mapping[str, str]) -> ProxySettings:
    """Return the proxies that lead to an upstream.

    :raises ConfigurationError: when a proxy's URL is invalid.
    """
    try:
        if upstream.proxy is None:
            return ProxySettings.parse(environ)
        proxy = Proxy.parse(upstream.proxy) if upstream.proxy else None
        return ProxySettings(proxy, proxy)
    except ValueError as error:
        raise ConfigurationError(f"proxy: {error}") from error
