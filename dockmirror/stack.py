"""The stack of one upstream: behaviour is added by wrapping one registry in another."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IAgent

from .cache import Cache
from .config import Settings, UpstreamSettings
from .interfaces import IRegistry
from .metered import CountedFailures, Metered
from .metrics import Metrics
from .names import Namespace, RedirectedNames, ShortNames
from .networks import PRIVATE, unmapped, within
from .pullthrough.asking import Asking as AskingFor
from .pullthrough.blobs import Blobs
from .pullthrough.handshake import Handshake as KeptHandshake
from .pullthrough.lists import Lists
from .pullthrough.manifests import Manifests
from .pullthrough.permission import Grants, Public
from .pullthrough.registry import PullThrough
from .pullthrough.resting import Resting
from .upstream.anonymous import Anonymous
from .upstream.asking import Asking
from .upstream.client import Client, http_client
from .upstream.measured import Measured
from .upstream.realms import Realms
from .upstream.registry import Upstream
from .upstream.tokens import Handshake, Relay
from .whole import Whole

AgentFor = Callable[[UpstreamSettings, Callable[[str, str], None]], IAgent]
"""Makes what connects to the servers of one upstream, and tells of each host and address that it reaches."""


@frozen
class Stack:
    """One upstream, as its virtual host and as the mirror's own host serve it."""

    virtual: IRegistry
    own: IRegistry


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
) -> Stack:
    """The registries of this upstream, with a cache or without one."""
    reached = Reached(urlsplit(upstream.url).hostname or "")
    agent = Measured(agent_for(upstream, reached), name, metrics, clock)
    registry = CountedFailures(_upstream(name, upstream, agent, clock), name, metrics)
    anonymous = Anonymous(registry, clock)
    if cache is None:
        return _named(upstream, Whole(registry, clock), Whole(anonymous, clock))

    def learns() -> bool:
        return not reached.privately if upstream.public is None else upstream.public

    asking = AskingFor(
        registry,
        anonymous,
        Grants(clock),
        Public(name, cache.documents, clock, learns),
        Resting(clock),
        clock,
        settings.keep_vanished,
    )
    cached = _cached(name, registry_names(upstream)[0], asking, cache, clock, settings.tag_ttl)
    metered = Metered(cached, name, metrics)
    return _named(upstream, metered, metered)


def registry_names(upstream: UpstreamSettings) -> list[str]:
    """What a registry is called, its canonical name first: as a path's part a port is joined by ``_``."""
    netloc = urlsplit(upstream.url).netloc
    canonical = upstream.registry or netloc.replace(":", "_")
    return list(dict.fromkeys([canonical, *upstream.aliases, *([] if upstream.registry else [netloc])]))


def _cached(
    entry: str, registry: str, asking: AskingFor, cache: Cache, clock: IReactorTime, tag_ttl: float
) -> PullThrough:
    return PullThrough(
        asking,
        KeptHandshake(entry, asking, cache.documents, clock),
        Manifests(registry, asking, cache.contents, cache.tags, clock, tag_ttl),
        Blobs(registry, asking, Whole(asking, clock), cache.contents, cache.growths, clock),
        Lists(entry, asking, cache.documents, clock, tag_ttl),
    )


def _named(upstream: UpstreamSettings, virtual: IRegistry, own: IRegistry) -> Stack:
    """Short names are completed on the own host whatever the virtual host does."""
    names = {"complete": ShortNames, "redirect": RedirectedNames, "off": _same}
    wrapped = names[upstream.short_names](virtual)
    return Stack(
        Namespace(wrapped, registry_names(upstream)),
        own if upstream.short_names == "off" else ShortNames(own),
    )


def _same(registry: IRegistry) -> IRegistry:
    return registry


def _upstream(name: str, upstream: UpstreamSettings, agent: IAgent, clock: IReactorTime) -> Upstream:
    client = Client(http_client(agent), clock, name, upstream.timeout)
    handshake = Handshake(client, upstream.url, clock)
    relay = Relay(client, handshake, Realms(upstream.url, upstream.realms))
    return Upstream(client, Asking(upstream.url, client, handshake), handshake, relay)
