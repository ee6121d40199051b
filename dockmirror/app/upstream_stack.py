"""One upstream as the mirror asks it: its accounts, its connections, and the registries at its addresses."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from attrs import evolve, frozen
from twisted.internet.interfaces import IHostnameResolver, IReactorTime
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IAgent, IPolicyForHTTPS

from ..config.load import PASSWORD_PREFIX, PREFIX
from ..config.settings import ConfigurationError, Settings, UpstreamSettings
from ..interfaces import IAccount, IRegistry, IUpstream, IWritableRegistry
from ..metrics import Metrics
from ..middleware.failover import (
    CorruptBlobQuarantine,
    Failover,
    FallbackMirror,
    UpstreamFailover,
    UpstreamFallback,
    can_use_fallback,
)
from ..middleware.names import PrefixedUpstream, WriteNameRewrite, add_prefix
from ..middleware.observers import UpstreamObserver, WriteMetrics
from ..middleware.token_registry import TokenRegistry
from ..oci.credentials import Credentials
from ..oci.request import RegistryRequest
from ..oci.token import Login
from ..status.status_values import UpstreamHealth
from ..system.external_program import ProcessResult
from ..system.networks import PRIVATE, is_within, parse_address, parse_networks
from ..upstream.addresses import AllowedAddresses
from ..upstream.agents import (
    ConcurrencyLimit,
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
from ..upstream.registry_client import RegistryClient
from ..upstream.registry_writer import LocationSigner, RegistryWriter
from ..upstream.token_relay import ChallengeCache, TokenRelay, TrustedRealms
from ..upstream.upload_client import DrainingTCP, UnpooledConnections, UploadClient
from ..upstream.upstream_accounts import CredentialHelper, FixedAccount
from ..upstream.upstream_blobs import BlobSizes
from ..upstream.upstream_client import UpstreamClient
from ..upstream.upstream_endpoints import UpstreamEndpoints, make_tls_policy
from ..upstream.upstream_registry import UpstreamRegistry
from .naming import registry_names

AgentFor = Callable[[UpstreamSettings, Callable[[str, str], None]], IAgent]
"""Makes the agent of one upstream; the agent reports the host and address of each connection it makes."""
RunProgram = Callable[[Sequence[str], Mapping[str, str], bytes], Awaitable[ProcessResult]]
"""Runs a command in an environment, with some input."""
_HUB_SERVER = "https://index.docker.io/v1/"
"""Docker Hub's address among credential helpers; they know all other registries by host and port."""


@frozen
class UpstreamContext:
    """Everything that the registries of one upstream are made of.

    :ivar name: its name in the settings.
    :ivar account: the mirror's own account there.
    :ivar signing_keys: the keys of ``LocationSigner``, for an upstream that accepts pushes.
    :ivar mirror_id: the mirror's identifier in ``CDN-Loop``.
    """

    name: str
    settings: UpstreamSettings
    agent_for: AgentFor
    clock: IReactorTime
    metrics: Metrics
    health: UpstreamHealth
    account: IAccount | None = None
    signing_keys: Sequence[bytes] = ()
    mirror_id: str = ""


class PrivateAddressDetector:
    """Remembers whether an upstream's own host was reached at a private address.

    Such an upstream may answer because of the mirror's network, so its content is not public.
    """

    def __init__(self, host: str) -> None:
        self.is_private = False
        self._host = host

    def __call__(self, host: str, address: str) -> None:
        """Note a connection; see ``AgentFor``."""
        if host.lower() == self._host and is_within(parse_address(address), PRIVATE):
            self.is_private = True


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

    def is_private(self) -> bool:
        """Return whether any address of the registry itself proved to be a private one."""
        return any(each.is_private for each in self.detectors)


def make_upstream(context: UpstreamContext) -> UpstreamParts:
    """Make the registries of an upstream at all of its addresses.

    The mirror's account and the clients' credentials go only to addresses of the same registry: the first
    one, and its replicas.
    """
    settings, clock, account = context.settings, context.clock, context.account
    detectors = [PrivateAddressDetector(urlsplit(url).hostname or "") for url in settings.urls]
    made = [
        _make_registry(context, address, detector)
        for address, detector in zip(settings.by_address(), detectors, strict=True)
    ]
    first, *others = registries = [registry for registry, _ in made]
    writes = made[0][1]
    if not others:
        return UpstreamParts(first, TokenRegistry(first, clock, account), detectors, writes=writes)
    if settings.replicas:
        own = [TokenRegistry(each, clock, account) for each in registries]
        return UpstreamParts(
            UpstreamFailover(registries, clock), Failover(own, clock), detectors, writes=writes
        )
    anonymous = [TokenRegistry(other, clock) for other in others]
    authorized = TokenRegistry(first, clock, account)
    return UpstreamParts(
        UpstreamFallback(first, anonymous, clock),
        FallbackMirror(authorized, anonymous, clock),
        detectors[:1],
        can_use_fallback,
        writes,
    )


def _make_registry(
    context: UpstreamContext, settings: UpstreamSettings, reached: Callable[[str, str], None]
) -> tuple[IUpstream, IWritableRegistry | None]:
    """Make the registry at one address, with connections, a challenge and tokens of its own.

    :param settings: the upstream's, with this address only.
    """
    name, clock, metrics = context.name, context.clock, context.metrics
    url, prefix = settings.origin, settings.prefix
    with upstream_errors(name, settings):
        connections = context.agent_for(settings, reached)
    if context.mirror_id:
        connections = LoopMarkingAgent(connections, context.mirror_id)
    agent = InstrumentedAgent(connections, name, metrics, clock, context.health.record_quota)
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


@contextmanager
def upstream_errors(name: str, upstream: UpstreamSettings) -> Iterator[None]:
    """Add the place of the setting to the errors of ``make_agent``: its table, or the environment."""
    try:
        yield
    except ConfigurationError as error:
        is_from_environment = str(error).startswith("proxy: ") and upstream.proxy is None
        place = "the environment: " if is_from_environment else f"upstreams.{name}."
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
        reactor,
        FixedAddresses(AddressFamilyResolver(resolver, FAMILIES[upstream.ip]), upstream.addresses),
        _tls_policy(upstream),
        AllowedAddresses(
            [upstream.url, *upstream.realms],
            tuple(parse_networks(upstream.allow_networks)),
            [host for host in upstream.addresses if host != own],
        ),
        upstream.connect_timeout,
        reached,
        parse_proxies(upstream, environ),
        frozenset(upstream.addresses),
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
        return make_tls_policy(str(upstream.ca_file) if upstream.ca_file else None)
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


def load_accounts(
    settings: Settings, environ: Mapping[str, str], run: RunProgram, clock: IReactorTime
) -> dict[str, IAccount]:
    """Return the mirror's own accounts, by the names of their upstreams.

    :param environ: may hold passwords; credential helpers run in it, without the mirror's own variables.
    :raises ConfigurationError: when a password or a credential helper is missing, or both are given.
    """
    accounts: dict[str, IAccount] = {
        name: FixedAccount(Login(credentials))
        for name, credentials in load_credentials(settings, environ).items()
    }
    # Other upstreams' passwords stand in variables of the mirror's own.
    helper_environ = {key: value for key, value in environ.items() if not key.startswith(PREFIX)}
    for name, upstream in settings.upstreams.items():
        if upstream.credential_helper is not None:
            program = _find_helper(name, upstream, upstream.credential_helper, helper_environ.get("PATH"))
            server = (
                _HUB_SERVER if registry_names(upstream)[0] == "docker.io" else urlsplit(upstream.url).netloc
            )
            get = partial(run, [program, "get"], helper_environ)
            accounts[name] = CredentialHelper(name, server, get, clock)
    return accounts


def _find_helper(name: str, upstream: UpstreamSettings, helper: str, path: str | None) -> str:
    key = f"upstreams.{name}.credential_helper"
    if upstream.username is not None:
        raise ConfigurationError(f"{key}: expected no 'username' beside it")
    command = helper if "/" in helper else f"docker-credential-{helper}"
    program = shutil.which(command, path=path)
    if program is None:
        raise ConfigurationError(f"{key}: expected a program; {command} is missing or not executable")
    return program


def load_credentials(settings: Settings, environ: Mapping[str, str]) -> dict[str, Credentials]:
    """Return the user names and passwords of the mirror's own accounts, by upstream.

    :param environ: may hold passwords, which win over those in files.
    :raises ConfigurationError: for a user name without a password, and for a password without a user name.
    """
    variables = {key: value for key, value in environ.items() if key.startswith(PASSWORD_PREFIX)}
    credentials = dict(_each_credentials(settings, variables))
    unused = variables.keys() - {password_variable(name) for name in credentials}
    if unused:
        raise ConfigurationError(
            f"the environment: {min(unused)}: expected an upstream of that name with a 'username'"
        )
    return credentials


def _each_credentials(settings: Settings, variables: Mapping[str, str]) -> Iterator[tuple[str, Credentials]]:
    for name, upstream in settings.upstreams.items():
        key, variable = f"upstreams.{name}", password_variable(name)
        if upstream.username is None:
            if upstream.password_file is not None:
                raise ConfigurationError(f"{key}.password_file: expected a 'username' beside it")
            continue
        password = variables.get(variable) or _read_password(key, upstream)
        if not password:
            raise ConfigurationError(
                f"{key}.username: expected a password for it, in 'password_file' or in {variable}"
            )
        yield name, Credentials.basic(upstream.username, password)


def password_variable(name: str) -> str:
    """Return the variable that may hold the password of an upstream's account."""
    return PASSWORD_PREFIX + name.upper().replace("-", "_")


def _read_password(key: str, upstream: UpstreamSettings) -> str:
    path = upstream.password_file
    try:
        return path.read_bytes().removesuffix(b"\n").decode() if path else ""
    except OSError as error:
        raise ConfigurationError(f"{key}.password_file: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{key}.password_file: expected text in UTF-8") from None
