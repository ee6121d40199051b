"""Diagnose step by step whether the mirror can pull from an upstream, with the parts that it pulls with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from attrs import evolve, field, frozen
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.error import ConnectError, ConnectionRefusedError, DNSLookupError, SSLError
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IAgent

from ..app.accounts import REST, Accounts, load_accounts
from ..app.naming import ImageName
from ..app.upstream_stack import (
    AgentFor,
    UpstreamContext,
    UpstreamParts,
    make_agent,
    make_upstream,
    parse_proxies,
    peer_connection,
)
from ..config.settings import Settings, UpstreamSettings
from ..interfaces import IAccount, IRegistry, ITokenService, IUpstream
from ..metrics import Metrics
from ..oci.errors import Challenge, RegistryError, TooManyRequests, Unauthorized, find_challenge
from ..oci.media import EVERYTHING
from ..oci.request import Manifest, Ping, RegistryRequest, Repository, Tag
from ..oci.token import TokenRequest, pull_scope
from ..status import UpstreamHealth
from ..system.external_program import run_process
from ..upstream.agents import HostAgent, parse_quota
from ..upstream.bounded_endpoint import HandshakeTimedOut
from ..upstream.checked_endpoint import AddressRefused, threaded_resolver
from ..upstream.proxy import Proxy, ProxySettings
from ..upstream.upstream_client import NoAnswer, find_root_cause

_PREVIEW = Repository("ratelimitpreview/test")
"""A HEAD request for this repository's manifest reports the remaining pulls and does not count as one.

Source: Docker Hub, "Pull usage and limits", "View pull rate and limit".
"""
_HUB = "docker.io"
_REFUSALS = {400, 401, 403, 404}
_PORTS = {"http": 80, "https": 443}
_NO_TLS = "wrong version number"
"""OpenSSL's reason if a server answers a handshake with something other than TLS, such as plain HTTP."""


@frozen
class DiagnosticStep:
    """One step of a diagnosis, with its outcome in a sentence.

    :ivar kind: of a failure with advice of its own: ``refused``, ``not allowed`` or ``not spoken``.
    """

    name: str
    ok: bool
    result: str
    kind: str = ""


@frozen
class Diagnosis:
    """The diagnosis of one address of an upstream, or of a peer: its steps up to the first failure.

    :ivar upstream: its name; ``peer`` for a peer.
    :ivar addresses: the IP addresses that its name resolves to here.
    :ivar offline: True if the settings say that nothing is asked of it.
    :ivar is_peer: True for a peer.
    """

    upstream: str
    url: str
    addresses: Sequence[str]
    steps: Sequence[DiagnosticStep]
    offline: bool = False
    is_peer: bool = False

    @property
    def ok(self) -> bool:
        """The mirror can pull from this address."""
        return all(step.ok for step in self.steps)


@frozen
class DiagnosedAddress:
    """An address of an upstream that is to be diagnosed.

    :ivar upstream: has that address only.
    :ivar accounts: the mirror's own accounts.
    :ivar images: those that are to be found there.
    """

    name: str
    upstream: UpstreamSettings
    accounts: Accounts = field(factory=dict)
    images: Sequence[ImageName] = ()


async def diagnose_all(
    settings: Settings,
    environ: Mapping[str, str],
    images: Mapping[str, Sequence[ImageName]],
    peers: Sequence[str],
    reactor: Any,
) -> list[Diagnosis]:
    """Diagnose all addresses of upstreams, and peers, at the same time.

    :param images: those that are to be found at each of the upstreams, by the upstreams' names.
    :param peers: the addresses of peers.
    """
    resolver = threaded_resolver(reactor)
    all_accounts = load_accounts(settings, environ, partial(run_process, reactor), reactor)

    def agent_for(upstream: UpstreamSettings, on_connect: Callable[[str, str], None]) -> IAgent:
        return make_agent(upstream, resolver, environ, on_connect, reactor)

    running: list[Deferred[Diagnosis]] = []
    for name, wanted in images.items():
        upstream = settings.upstreams[name]
        if settings.is_offline(upstream):
            running += [succeed(_describe_offline(name, url)) for url in upstream.urls]
            continue
        for number, single in enumerate(upstream.by_address()):
            accounts = all_accounts.get(name, {}) if number == 0 or upstream.replicas else {}
            subject = DiagnosedAddress(name, single, accounts, wanted)
            running.append(
                Deferred.fromCoroutine(diagnose(subject, agent_for, parse_proxies(single, environ), reactor))
            )
    running += [Deferred.fromCoroutine(diagnose_peer(each, settings, agent_for, reactor)) for each in peers]
    return list(await gatherResults(running, consumeErrors=True))


def _describe_offline(name: str, url: str) -> Diagnosis:
    return Diagnosis(name, url, (), [DiagnosticStep("offline", True, "not asked: 'offline' is set")], True)


async def diagnose(
    subject: DiagnosedAddress, agent_for: AgentFor, proxies: ProxySettings, clock: IReactorTime
) -> Diagnosis:
    """Diagnose one address of an upstream."""
    found: dict[str, list[str]] = {}
    upstream = subject.upstream

    def record_agent(single: UpstreamSettings, on_connect: Callable[[str, str], None]) -> IAgent:
        def record(host: str, address: str) -> None:
            found.setdefault(host.lower(), []).append(address)
            on_connect(host, address)

        return agent_for(single, record)

    metrics, health = Metrics(CollectorRegistry()), UpstreamHealth(clock)
    parts = make_upstream(
        UpstreamContext(subject.name, upstream, record_agent, clock, metrics, health, subject.accounts)
    )
    steps = await _run_steps(_ConnectionPath(upstream, proxies, found), parts, subject.accounts)
    if all(step.ok for step in steps):
        steps += [await _find_image(parts.authorized, image) for image in subject.images]
    return Diagnosis(subject.name, upstream.url, found.get(_host(upstream), ()), steps)


async def diagnose_peer(
    address: str, settings: Settings, agent_for: AgentFor, clock: IReactorTime
) -> Diagnosis:
    """Diagnose a peer, by the name of the mirrors' own host."""

    def agent_for_own_host(single: UpstreamSettings, on_connect: Callable[[str, str], None]) -> IAgent:
        return HostAgent(agent_for(single, on_connect), single.origin, settings.domain)

    subject = DiagnosedAddress("peer", peer_connection(address))
    return evolve(await diagnose(subject, agent_for_own_host, ProxySettings(), clock), is_peer=True)


async def _find_image(registry: IRegistry, image: ImageName) -> DiagnosticStep:
    target = Manifest(Repository(image.repository.rest), image.reference)
    try:
        await registry.fetch(RegistryRequest(target, head=True, accept=EVERYTHING))
    except RegistryError as error:
        return DiagnosticStep("image", False, f"{image} cannot be pulled: {_one_line(error)}")
    return DiagnosticStep("image", True, f"{image} can be pulled")


async def _run_steps(path: _ConnectionPath, parts: UpstreamParts, accounts: Accounts) -> list[DiagnosticStep]:
    try:
        challenges = await _fetch_challenges(parts.relayed)
    except RegistryError as error:
        return path.failed_steps(error)
    steps = [*path.steps(), DiagnosticStep("/v2/", True, _describe_authentication(challenges))]
    is_hub = path.upstream.canonical == _HUB
    names = {REST: None, **accounts} if _allows_anonymous(challenges) or not accounts else accounts
    for name in names:
        account = accounts.get(name)
        whose = f"{name}: " if name else ""
        try:
            token = await _authenticate(parts.relayed, challenges, account, is_hub)
            steps.append(DiagnosticStep("token", True, f"{whose}{token}"))
        except RegistryError as error:
            steps.append(DiagnosticStep("token", False, f"{whose}{error}"))
    if is_hub and all(step.ok for step in steps):
        steps.append(await _check_limit(parts.authorized))
    return steps


def _allows_anonymous(challenges: Sequence[Challenge]) -> bool:
    """Return whether the registry may give something to requests without an account."""
    return find_challenge(challenges, "Bearer") is not None or not find_challenge(challenges, "Basic")


@frozen
class _ConnectionPath:
    """The path to the upstream, reported as steps from the recorded addresses and the failure.

    :ivar found: the IP addresses that were about to be connected to, by host name.
    """

    upstream: UpstreamSettings
    proxies: ProxySettings
    found: Mapping[str, Sequence[str]]

    def steps(self) -> list[DiagnosticStep]:
        """Return the steps of a successful connection."""
        name = DiagnosticStep("name", True, ", ".join(self._addresses) or "resolved by the proxy")
        route = f"through the proxy {self._proxy}" if self._proxy else "directly"
        tls = "the certificate is valid" if self._is_secure else "not used: the address is http"
        return [name, DiagnosticStep("connection", True, route), DiagnosticStep("TLS", True, tls)]

    def failed_steps(self, error: RegistryError) -> list[DiagnosticStep]:
        """Return the steps up to the one that failed."""
        name, connection, tls = self.steps()
        cause = find_root_cause(error.__cause__) if error.__cause__ else error
        match cause:
            case DNSLookupError():
                reason = f"{_host(self.upstream)} cannot be resolved: {_one_line(cause)}"
                return [DiagnosticStep("name", False, reason)]
            case NoAnswer():
                return [name, connection, tls, _failed("/v2/", cause)]
            case SSLError() | HandshakeTimedOut():
                kind = "not spoken" if _NO_TLS in str(cause) else ""
                return [name, connection, _failed("TLS", cause, kind)]
            case AddressRefused():
                step = _failed("connection", cause, "not allowed")
                return [DiagnosticStep("name", True, "resolved"), step]
            case ConnectionRefusedError() if self._addresses and not self._proxy:
                return [name, _failed("connection", cause, "refused")]
            case ConnectError() if self._proxy or self._addresses:
                return [name, _failed("connection", cause)]
            case ConnectError():
                return [_failed("name", cause)]
            case _:
                return [name, connection, tls, _failed("/v2/", error)]

    @property
    def _addresses(self) -> Sequence[str]:
        return self.found.get(_host(self.upstream), ())

    @property
    def _is_secure(self) -> bool:
        return urlsplit(self.upstream.url).scheme == "https"

    @property
    def _proxy(self) -> Proxy | None:
        parts = urlsplit(self.upstream.url)
        return self.proxies.choose(parts.scheme, _host(self.upstream), parts.port or _PORTS[parts.scheme])


async def _fetch_challenges(registry: IRegistry) -> Sequence[Challenge]:
    """Return the challenges of ``/v2/``; none when it needs no authentication."""
    try:
        await registry.fetch(RegistryRequest(Ping()))
    except Unauthorized as error:
        return error.challenges
    return ()


def _describe_authentication(challenges: Sequence[Challenge]) -> str:
    if bearer := find_challenge(challenges, "Bearer"):
        return f"it requires a token from {bearer.get('realm')}"
    if find_challenge(challenges, "Basic"):
        return "it requires a username and a password"
    return "it requires no authentication"


async def _authenticate(
    registry: IUpstream, challenges: Sequence[Challenge], account: IAccount | None, is_hub: bool
) -> str:
    """Authenticate, and describe the result.

    :raises RegistryError: when the registry or its token service refuses.
    """
    scopes = (pull_scope(_PREVIEW),) if is_hub else ()
    if find_challenge(challenges, "Bearer"):
        if account is not None:
            login = await account.login()
            await registry.token(evolve(login.token_request(pull_scope(_PREVIEW)), scopes=scopes))
            return "issued to the mirror's own account"
        return await _request_anonymous_token(registry, TokenRequest(scopes))
    if not find_challenge(challenges, "Basic"):
        return "not needed"
    if account is None:
        return "none: the mirror has no account there, so only clients with credentials can pull"
    await registry.fetch(RegistryRequest(Ping(), credentials=(await account.login()).credentials))
    return "none: the username and the password of the mirror's own account are accepted"


async def _request_anonymous_token(registry: ITokenService, request: TokenRequest) -> str:
    """Request an anonymous token.

    Some token services refuse a token without a repository; such a refusal shows that the service works.
    """
    try:
        await registry.token(request)
    except RegistryError as error:
        if request.scopes or error.upstream_status not in _REFUSALS:
            raise
        return f"the token service works, and refuses a token without an account and a repository: '{error}'"
    return "issued anonymously"


async def _check_limit(registry: IRegistry) -> DiagnosticStep:
    request = RegistryRequest(Manifest(_PREVIEW, Tag("latest")), head=True, accept=EVERYTHING)
    try:
        headers = dict((await registry.fetch(request)).headers)
    except TooManyRequests as error:
        return DiagnosticStep("limit", False, f"rate limit exceeded: {_one_line(error)}")
    except RegistryError as error:
        return DiagnosticStep("limit", True, f"unknown: {_one_line(error)}")
    remaining, limit = (parse_quota(headers.get(f"RateLimit-{name}", "")) for name in ("Remaining", "Limit"))
    if remaining is None or limit is None:
        return DiagnosticStep("limit", True, "the registry reports none")
    return DiagnosticStep("limit", remaining > 0, f"{remaining} of {limit} pulls remain")


def _host(upstream: UpstreamSettings) -> str:
    return (urlsplit(upstream.url).hostname or "").lower()


def _failed(step: str, error: BaseException, kind: str = "") -> DiagnosticStep:
    return DiagnosticStep(step, False, _one_line(error), kind)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
