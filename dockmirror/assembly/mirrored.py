"""The registry that is mirrored, at all of its addresses, as it is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IAgent

from ..config.settings import UpstreamSettings
from ..interfaces import IAccount, IRegistry, IWrites
from ..metrics import Metrics
from ..oci.request import Request
from ..registries.failover import Elsewhere, Replicas, anywhere
from ..registries.metered import CountedFailures, MeteredWrites
from ..registries.noted import Noted
from ..registries.quarantine import Quarantine
from ..status.outcomes import Outcomes
from ..system.networks import PRIVATE, unmapped, within
from ..upstream.asking import Asking
from ..upstream.authorized import Authorized
from ..upstream.client import Client
from ..upstream.measured import Measured
from ..upstream.realms import Realms
from ..upstream.registry import Upstream
from ..upstream.sealed import Seals
from ..upstream.sizes import Sizes
from ..upstream.submitting import Submitting
from ..upstream.tokens import Handshake, Relay
from ..upstream.undecoded import http_client
from ..upstream.writing import Writing

AgentFor = Callable[[UpstreamSettings, Callable[[str, str], None]], IAgent]
"""Makes what connects to the servers of one upstream, and tells of each host and address that it reaches."""


class Reached:
    """Remembers whether an upstream's own host was reached at a private address.

    What it gives, it may give because of where the mirror stands, and not to everybody.
    """

    def __init__(self, host: str) -> None:
        self.privately = False
        self._host = host

    def __call__(self, host: str, address: str) -> None:
        """See ``Endpoints.reached``."""
        if host.lower() == self._host and within(unmapped(address), PRIVATE):
            self.privately = True


@frozen
class Mirrored:
    """One upstream.

    :ivar relayed: asked with clients' own credentials.
    :ivar authorized: asked with tokens of the mirror's own.
    :ivar reached: how the addresses were reached at which it is the registry itself that answers.
    :ivar apart: see ``Resting``.
    :ivar writes: written to, with clients' own credentials, where it may be: at the first address.
    """

    relayed: IRegistry
    authorized: IRegistry
    reached: Sequence[Reached]
    apart: Callable[[Request], object] = lambda _: None
    writes: IWrites | None = None

    def privately(self) -> bool:
        """Whether any of its own addresses has proved to be a private one."""
        return any(each.privately for each in self.reached)


def mirrored(
    name: str,
    upstream: UpstreamSettings,
    agent_for: AgentFor,
    clock: IReactorTime,
    metrics: Metrics,
    outcomes: Outcomes,
    account: IAccount | None,
    keys: Sequence[bytes] = (),
) -> Mirrored:
    """The upstream at its addresses, of which each has connections, a handshake and tokens of its own.

    The account, and clients' credentials, are for those that are the same registry.

    :param keys: see ``Seals``; of use where it is written to.
    """
    reached: list[Reached] = []
    registries: list[IRegistry] = []
    writes: IWrites | None = None
    for one in upstream.by_address():
        reached.append(Reached(urlsplit(one.url).hostname or ""))
        agent = Measured(agent_for(one, reached[-1]), name, metrics, clock, outcomes.allow)
        client = Client(http_client(agent), clock, name, one.url, one.timeout)
        handshake = Handshake(client, one.url, clock)
        noted = Noted(_upstream(one, client, handshake, clock), outcomes.of(one.url))
        registries.append(Quarantine(CountedFailures(noted, name, metrics), clock))
        if upstream.writes and writes is None:
            sent = metrics.pushed_bytes.labels(name).inc
            submitting = Submitting(agent, client, clock, one.timeout, sent)
            writing = Writing(one.url, client, submitting, handshake, Seals(keys, name))
            writes = MeteredWrites(writing, name, metrics)
    first, *others = registries
    if not others:
        return Mirrored(first, Authorized(first, clock, account), reached, writes=writes)
    if upstream.replicas:
        own = [Authorized(each, clock, account) for each in registries]
        return Mirrored(Replicas(registries, clock), Replicas(own, clock), reached, writes=writes)
    anonymous = [Authorized(other, clock) for other in others]
    authorized = Authorized(first, clock, account)
    return Mirrored(
        Elsewhere(first, anonymous, clock), Elsewhere(authorized, anonymous, clock), reached[:1], anywhere,
        writes,
    )  # fmt: skip


def _upstream(
    upstream: UpstreamSettings, client: Client, handshake: Handshake, clock: IReactorTime
) -> Upstream:
    relay = Relay(client, handshake, Realms(upstream.url, upstream.realms))
    return Upstream(client, Asking(upstream.url, client, handshake, clock), handshake, relay, Sizes(clock))
