"""The registry that is mirrored, at all of its addresses, as it is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IAgent

from ..config.settings import UpstreamSettings
from ..interfaces import IAccount, IRegistry, IWritableRegistry
from ..metrics import Metrics
from ..middleware.cache_metrics import ErrorMetrics, WriteMetrics
from ..middleware.failover import Failover, FallbackMirror, can_use_fallback
from ..middleware.health_recorder import HealthRecorder
from ..middleware.quarantine import CorruptBlobQuarantine
from ..middleware.token_registry import TokenRegistry
from ..oci.request import RegistryRequest
from ..status.upstream_health import UpstreamHealth
from ..system.networks import PRIVATE, is_within, parse_address
from ..upstream.blob_sizes import BlobSizes
from ..upstream.identity_encoding import http_client
from ..upstream.instrumented_agent import InstrumentedAgent
from ..upstream.registry_client import RegistryClient
from ..upstream.registry_writer import RegistryWriter
from ..upstream.signed_locations import LocationSigner
from ..upstream.token_relay import ChallengeCache, TokenRelay
from ..upstream.trusted_realms import TrustedRealms
from ..upstream.upload_client import UploadClient
from ..upstream.upstream_client import UpstreamClient
from ..upstream.upstream_registry import UpstreamRegistry

AgentFor = Callable[[UpstreamSettings, Callable[[str, str], None]], IAgent]
"""Makes what connects to the servers of one upstream, and tells of each host and address that it reaches."""


class PrivateAddressDetector:
    """Remembers whether an upstream's own host was reached at a private address.

    What it gives, it may give because of where the mirror stands, and not to everybody.
    """

    def __init__(self, host: str) -> None:
        self.privately = False
        self._host = host

    def __call__(self, host: str, address: str) -> None:
        """See ``Endpoints.reached``."""
        if host.lower() == self._host and is_within(parse_address(address), PRIVATE):
            self.privately = True


@frozen
class UpstreamParts:
    """One upstream.

    :ivar relayed: asked with clients' own credentials.
    :ivar authorized: asked with tokens of the mirror's own.
    :ivar reached: how the addresses were reached at which it is the registry itself that answers.
    :ivar apart: see ``RequestCircuitBreaker``.
    :ivar writes: written to, with clients' own credentials, where it may be: at the first address.
    """

    relayed: IRegistry
    authorized: IRegistry
    reached: Sequence[PrivateAddressDetector]
    apart: Callable[[RegistryRequest], object] = lambda _: None
    writes: IWritableRegistry | None = None

    def privately(self) -> bool:
        """Whether any of its own addresses has proved to be a private one."""
        return any(each.privately for each in self.reached)


def make_upstream(
    name: str,
    upstream: UpstreamSettings,
    agent_for: AgentFor,
    clock: IReactorTime,
    metrics: Metrics,
    outcomes: UpstreamHealth,
    account: IAccount | None,
    keys: Sequence[bytes] = (),
) -> UpstreamParts:
    """The upstream at its addresses, of which each has connections, a handshake and tokens of its own.

    The account, and clients' credentials, are for those that are the same registry.

    :param keys: see ``LocationSigner``; of use where it is written to.
    """
    reached: list[PrivateAddressDetector] = []
    registries: list[IRegistry] = []
    writes: IWritableRegistry | None = None
    for one in upstream.by_address():
        reached.append(PrivateAddressDetector(urlsplit(one.url).hostname or ""))
        agent = InstrumentedAgent(agent_for(one, reached[-1]), name, metrics, clock, outcomes.allow)
        client = UpstreamClient(http_client(agent), clock, name, one.url, one.timeout)
        handshake = ChallengeCache(client, one.url, clock)
        noted = HealthRecorder(_upstream(one, client, handshake, clock), outcomes.of(one.url))
        registries.append(CorruptBlobQuarantine(ErrorMetrics(noted, name, metrics), clock))
        if upstream.writes and writes is None:
            sent = metrics.pushed_bytes.labels(name).inc
            submitting = UploadClient(agent, client, clock, one.timeout, sent)
            writing = RegistryWriter(one.url, client, submitting, handshake, LocationSigner(keys, name))
            writes = WriteMetrics(writing, name, metrics)
    first, *others = registries
    if not others:
        return UpstreamParts(first, TokenRegistry(first, clock, account), reached, writes=writes)
    if upstream.replicas:
        own = [TokenRegistry(each, clock, account) for each in registries]
        return UpstreamParts(Failover(registries, clock), Failover(own, clock), reached, writes=writes)
    anonymous = [TokenRegistry(other, clock) for other in others]
    authorized = TokenRegistry(first, clock, account)
    return UpstreamParts(
        FallbackMirror(first, anonymous, clock),
        FallbackMirror(authorized, anonymous, clock),
        reached[:1],
        can_use_fallback,
        writes,
    )


def _upstream(
    upstream: UpstreamSettings, client: UpstreamClient, handshake: ChallengeCache, clock: IReactorTime
) -> UpstreamRegistry:
    relay = TokenRelay(client, handshake, TrustedRealms(upstream.url, upstream.realms))
    return UpstreamRegistry(
        client, RegistryClient(upstream.url, client, handshake, clock), handshake, relay, BlobSizes(clock)
    )
