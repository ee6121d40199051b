"""Whether the mirror can pull from an upstream: step by step, by the very parts that it pulls with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from attrs import evolve, frozen
from prometheus_client import CollectorRegistry
from twisted.internet.error import ConnectError, DNSLookupError, SSLError
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IAgent

from ..app.naming import registry_names
from ..app.upstream_stack import AgentFor, UpstreamContext, UpstreamParts, make_upstream
from ..config.settings import UpstreamSettings
from ..interfaces import IAccount, IRegistry
from ..metrics import Metrics
from ..oci.challenge import Challenge, find_challenge
from ..oci.errors import RegistryError, TooManyRequests, Unauthorized
from ..oci.media import EVERYTHING
from ..oci.reference import Repository, Tag
from ..oci.request import Manifest, Ping, RegistryRequest
from ..oci.scope import pull_scope
from ..oci.token import TokenRequest
from ..status.upstream_health import UpstreamHealth
from ..upstream.agents import parse_quota
from ..upstream.bounded_endpoint import HandshakeTimedOut
from ..upstream.checked_endpoint import AddressRefused
from ..upstream.proxy import Proxy, ProxySettings
from ..upstream.upstream_client import NoAnswer, find_root_cause

_PREVIEW = Repository("ratelimitpreview/test")
"""Whose manifest's HEAD tells how many pulls are left, and is none itself.

Source: Docker Hub, "Pull usage and limits", "View pull rate and limit".
"""
_HUB = "docker.io"
_NOBODY = {400, 401, 403, 404}
_PORTS = {"http": 80, "https": 443}


@frozen
class DiagnosticStep:
    """What was tried; told in a sentence whether it went well or not."""

    name: str
    well: bool
    told: str


@frozen
class Diagnosis:
    """What came of one address of an upstream: steps up to the first that did not go well.

    :ivar addresses: those that its name was resolved to here.
    """

    upstream: str
    url: str
    addresses: Sequence[str]
    steps: Sequence[DiagnosticStep]

    @property
    def well(self) -> bool:
        """Whether the mirror can pull from there."""
        return all(step.well for step in self.steps)


async def diagnose(
    name: str,
    upstream: UpstreamSettings,
    agent_for: AgentFor,
    proxies: ProxySettings,
    clock: IReactorTime,
    account: IAccount | None,
) -> Diagnosis:
    """Asks one address.

    :param upstream: with that address only.
    :param account: the mirror's own, where it has one.
    """
    found: dict[str, list[str]] = {}

    def noting(one: UpstreamSettings, reached: Callable[[str, str], None]) -> IAgent:
        def note(host: str, address: str) -> None:
            found.setdefault(host.lower(), []).append(address)
            reached(host, address)

        return agent_for(one, note)

    metrics = Metrics(CollectorRegistry())
    asked = make_upstream(
        UpstreamContext(name, upstream, noting, clock, metrics, UpstreamHealth(clock), account)
    )
    steps = await _steps(_ConnectionPath(upstream, proxies, found), asked, account)
    return Diagnosis(name, upstream.url, found.get(_host(upstream), ()), steps)


async def _steps(
    way: _ConnectionPath, asked: UpstreamParts, account: IAccount | None
) -> list[DiagnosticStep]:
    try:
        challenges = await _challenges(asked.relayed)
    except RegistryError as error:
        return way.failed(error)
    steps = [*way.taken(), DiagnosticStep("/v2/", True, _demanded(challenges))]
    is_hub = registry_names(way.upstream)[0] == _HUB
    try:
        steps.append(DiagnosticStep("token", True, await _let_in(asked.relayed, challenges, account, is_hub)))
    except RegistryError as error:
        return [*steps, DiagnosticStep("token", False, str(error))]
    return [*steps, await _limit(asked.authorized)] if is_hub else steps


@frozen
class _ConnectionPath:
    """How the upstream is reached: told in steps of what was noted meanwhile, and of how it failed.

    :ivar found: the addresses that were about to be connected to, by the host's name.
    """

    upstream: UpstreamSettings
    proxies: ProxySettings
    found: Mapping[str, Sequence[str]]

    def taken(self) -> list[DiagnosticStep]:
        """The steps when it was reached."""
        name = DiagnosticStep("name", True, ", ".join(self._addresses) or "left to the proxy")
        way = f"through the proxy {self._proxy}" if self._proxy else "directly"
        told = "the certificate is for the name, and trusted" if self._secure else "none: the address is http"
        return [name, DiagnosticStep("connection", True, way), DiagnosticStep("TLS", True, told)]

    def failed(self, error: RegistryError) -> list[DiagnosticStep]:
        """The steps up to the one that failed."""
        name, connection, tls = self.taken()
        cause = find_root_cause(error.__cause__) if error.__cause__ else error
        match cause:
            case DNSLookupError():
                return [
                    DiagnosticStep(
                        "name", False, f"{_host(self.upstream)} cannot be resolved: {_words(cause)}"
                    )
                ]
            case NoAnswer():
                return [name, connection, tls, DiagnosticStep("/v2/", False, _words(cause))]
            case SSLError() | HandshakeTimedOut():
                return [name, connection, DiagnosticStep("TLS", False, _words(cause))]
            case AddressRefused():
                return [
                    DiagnosticStep("name", True, "resolved"),
                    DiagnosticStep("connection", False, _words(cause)),
                ]
            case ConnectError() if self._proxy or self._addresses:
                return [name, DiagnosticStep("connection", False, _words(cause))]
            case ConnectError():
                return [DiagnosticStep("name", False, _words(cause))]
            case _:
                return [name, connection, tls, DiagnosticStep("/v2/", False, _words(error))]

    @property
    def _addresses(self) -> Sequence[str]:
        return self.found.get(_host(self.upstream), ())

    @property
    def _secure(self) -> bool:
        return urlsplit(self.upstream.url).scheme == "https"

    @property
    def _proxy(self) -> Proxy | None:
        parts = urlsplit(self.upstream.url)
        return self.proxies.choose(parts.scheme, _host(self.upstream), parts.port or _PORTS[parts.scheme])


async def _challenges(registry: IRegistry) -> Sequence[Challenge]:
    """Those of ``/v2/``; none where everybody is let in."""
    try:
        await registry.fetch(RegistryRequest(Ping()))
    except Unauthorized as error:
        return error.challenges
    return ()


def _demanded(challenges: Sequence[Challenge]) -> str:
    if bearer := find_challenge(challenges, "Bearer"):
        return f"it asks for a token of {bearer.get('realm')}"
    if find_challenge(challenges, "Basic"):
        return "it asks for a name and a password"
    return "it lets everybody in"


async def _let_in(
    registry: IRegistry, challenges: Sequence[Challenge], account: IAccount | None, is_hub: bool
) -> str:
    """How it lets the mirror in.

    :raises RegistryError: when it does not.
    """
    scopes = (pull_scope(_PREVIEW),) if is_hub else ()
    if find_challenge(challenges, "Bearer"):
        if account is not None:
            login = await account.login()
            await registry.token(evolve(login.token_request(pull_scope(_PREVIEW)), scopes=scopes))
            return "given to the mirror's own account"
        return await _anonymous(registry, TokenRequest(scopes))
    if not find_challenge(challenges, "Basic"):
        return "none is needed"
    if account is None:
        return "none: only clients that log in can pull, for the mirror has no account there"
    await registry.fetch(RegistryRequest(Ping(), credentials=(await account.login()).credentials))
    return "none: the name and the password of the mirror's own account are taken"


async def _anonymous(registry: IRegistry, request: TokenRequest) -> str:
    """Some token services give nobody a token that is for no repository; these have answered, too."""
    try:
        await registry.token(request)
    except RegistryError as error:
        if request.scopes or error.upstream_status not in _NOBODY:
            raise
        return f"the token service answers: without an account and a repository's name it says '{error}'"
    return "given to anybody"


async def _limit(registry: IRegistry) -> DiagnosticStep:
    asked = RegistryRequest(Manifest(_PREVIEW, Tag("latest")), head=True, accept=EVERYTHING)
    try:
        told = dict((await registry.fetch(asked)).headers)
    except TooManyRequests as error:
        return DiagnosticStep("limit", False, f"it refuses to be asked more: {_words(error)}")
    except RegistryError as error:
        return DiagnosticStep("limit", True, f"it is not told: {_words(error)}")
    left, most = (
        parse_quota(told.get("RateLimit-Remaining", "")),
        parse_quota(told.get("RateLimit-Limit", "")),
    )
    if left is None or most is None:
        return DiagnosticStep("limit", True, "none is told")
    return DiagnosticStep("limit", left > 0, f"{left} of {most} pulls are left")


def _host(upstream: UpstreamSettings) -> str:
    return (urlsplit(upstream.url).hostname or "").lower()


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
