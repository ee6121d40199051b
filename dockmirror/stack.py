"""The stack of one upstream: behaviour is added by wrapping one registry in another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from urllib.parse import urlsplit

from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IAgent

from .cache import Cache
from .metered import CountedFailures, Metered
from .metrics import Metrics
from .networks import PRIVATE, unmapped, within
from .oci.credentials import Credentials
from .oci.request import InRepository
from .offered import Stack, offered, registry_names
from .pullthrough.asking import Asking as AskingFor
from .pullthrough.blobs import Blobs
from .pullthrough.handshake import Handshake as KeptHandshake
from .pullthrough.lists import Lists
from .pullthrough.manifests import Manifests
from .pullthrough.permission import Grants, Public
from .pullthrough.registry import PullThrough
from .pullthrough.resting import Resting
from .settings import Settings, UpstreamSettings
from .ttl import tag_ttl
from .upstream.asking import Asking
from .upstream.authorized import Authorized
from .upstream.client import Client, http_client
from .upstream.measured import Measured
from .upstream.realms import Realms
from .upstream.registry import Upstream
from .upstream.tokens import Handshake, Relay
from .whole import Whole

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


def stack(
    name: str,
    upstream: UpstreamSettings,
    settings: Settings,
    agent_for: AgentFor,
    clock: IReactorTime,
    cache: Cache | None,
    metrics: Metrics,
    credentials: Credentials | None = None,
) -> Stack:
    """The registries of this upstream, with a cache or without one.

    :param credentials: the mirror's own, where it has some; then clients' are of no use.
    """
    reached = Reached(urlsplit(upstream.url).hostname or "")
    agent = Measured(agent_for(upstream, reached), name, metrics, clock)
    registry = CountedFailures(_upstream(name, upstream, agent, clock), name, metrics)
    authorized = Authorized(registry, clock, credentials)
    if cache is None:
        relayed = authorized if settings.shared(upstream) else registry
        served = Stack(Whole(relayed, clock), Whole(authorized, clock))
    else:
        entry = _entry(name, upstream)
        asking = AskingFor(
            registry,
            authorized,
            Grants(clock),
            Public(entry, cache.documents, clock, _learns(upstream, reached)),
            Resting(clock),
            clock,
            settings.keep_vanished,
        )
        cached = _cached(
            entry, registry_names(upstream)[0], asking, cache, clock, tag_ttl(upstream, settings)
        )
        metered = Metered(cached, name, metrics)
        served = Stack(metered, metered)
    return offered(name, upstream, settings, served)


def _entry(name: str, upstream: UpstreamSettings) -> str:
    """By what it is kept what an upstream gives: what one account is given says nothing of another."""
    if upstream.username is None:
        return name
    return f"{name}+{hashlib.sha256(upstream.username.encode()).hexdigest()[:16]}"


def _learns(upstream: UpstreamSettings, reached: Reached) -> Callable[[], bool]:
    """Whether what the mirror is given is everybody's: where it has an account, all who come share it."""
    if upstream.username is not None:
        return lambda: True
    return lambda: not reached.privately if upstream.public is None else upstream.public


def _cached(
    entry: str,
    registry: str,
    asking: AskingFor,
    cache: Cache,
    clock: IReactorTime,
    ttl: Callable[[InRepository], float],
) -> PullThrough:
    return PullThrough(
        asking,
        KeptHandshake(entry, asking, cache.documents, clock),
        Manifests(registry, asking, cache.contents, cache.tags, clock, ttl),
        Blobs(registry, asking, Whole(asking, clock), cache.contents, cache.growths, clock),
        Lists(entry, asking, cache.documents, clock, ttl),
    )


def _upstream(name: str, upstream: UpstreamSettings, agent: IAgent, clock: IReactorTime) -> Upstream:
    client = Client(http_client(agent), clock, name, upstream.timeout)
    handshake = Handshake(client, upstream.url, clock)
    relay = Relay(client, handshake, Realms(upstream.url, upstream.realms))
    return Upstream(client, Asking(upstream.url, client, handshake), handshake, relay)
