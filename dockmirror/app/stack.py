"""The stack of one upstream: behaviour is added by wrapping one registry in another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IReactorTime

from ..concurrency.circuit_breaker import RequestCircuitBreaker
from ..config.settings import Settings, UpstreamSettings
from ..interfaces import IAccount, IRegistry
from ..middleware.cache_metrics import CacheMetrics
from ..middleware.health_recorder import PullCounter
from ..middleware.resuming_registry import ResumingRegistry
from ..middleware.segmented_fetch import SegmentedFetch
from ..oci.request import InRepository
from ..pullthrough.blobs import BlobCache
from ..pullthrough.generations import Generations
from ..pullthrough.grants import GrantCache, PublicRepositories
from ..pullthrough.list_cache import ListCache
from ..pullthrough.login_cache import LoginCache
from ..pullthrough.manifests import ManifestCache
from ..pullthrough.pull_through import PullThrough
from ..pullthrough.push_cache import PushCache
from ..pullthrough.upstream_gateway import PushProbeBypass, UpstreamGateway
from ..pullthrough.writethrough import WriteThrough
from ..status.cache_series import CacheSeries
from ..upstream.signed_locations import LocationSigner
from .cache import CacheParts
from .client_facing import HostRegistries, client_facing, registry_names
from .tag_ttl import tag_ttl
from .telemetry import Telemetry
from .upstream_stack import AgentFor, UpstreamParts, make_upstream


def stack(
    name: str,
    upstream: UpstreamSettings,
    settings: Settings,
    agent_for: AgentFor,
    clock: IReactorTime,
    cache: CacheParts | None,
    watched: Telemetry,
    account: IAccount | None = None,
    keys: Sequence[bytes] = (),
) -> HostRegistries:
    """The registries of this upstream, with a cache or without one.

    :param account: the mirror's own, where it has one; then clients' credentials are of no use.
    :param keys: see ``LocationSigner``.
    """
    outcomes = watched.upstreams.of(name)
    asked = make_upstream(name, upstream, agent_for, clock, watched.metrics, outcomes, account, keys)
    registry, writes = registry_names(upstream)[0], asked.writes
    if cache is None:
        relayed = asked.authorized if settings.shared(upstream) else asked.relayed
        served = HostRegistries(ResumingRegistry(relayed, clock), ResumingRegistry(asked.authorized, clock))
    else:
        entry = cache_partition(name, upstream)
        grants = GrantCache(clock)
        gateway = UpstreamGateway(
            asked.relayed,
            asked.authorized,
            grants,
            PublicRepositories(entry, cache.documents, clock, _learns(upstream, asked)),
            RequestCircuitBreaker(clock, asked.apart, outcomes.rest),
            clock,
            settings.keep_vanished,
        )
        filling = SegmentedFetch(gateway, upstream.segments, clock) if upstream.segments > 1 else gateway
        changes = Generations(registry, cache.documents, cache.deletions, clock)
        if writes is not None:
            cache.deletions.expect(registry)
            pushed = PushCache(
                writes, changes, cache.contents, cache.pushed, LocationSigner(keys, f"{name} copies")
            )
            writes = WriteThrough(pushed, changes, cache.contents, cache.tags, grants)
        cached = _cached(
            entry, registry, gateway, filling, cache, clock, tag_ttl(upstream, settings), changes
        )
        noting = _noting(watched.series, cache)
        existing = cached if writes is None else PushProbeBypass(cached, gateway)
        served = HostRegistries(
            CacheMetrics(existing, name, watched.metrics, noting),
            CacheMetrics(cached, name, watched.metrics, noting),
        )
    virtual, own = (PullCounter(each, registry, watched.popular) for each in (served.virtual, served.own))
    return client_facing(name, upstream, settings, HostRegistries(virtual, own, writes))


def cache_partition(name: str, upstream: UpstreamSettings) -> str:
    """By what it is kept what an upstream gives: what one account is given says nothing of another."""
    if upstream.account is None:
        return name
    return f"{name}+{hashlib.sha256(upstream.account.encode()).hexdigest()[:16]}"


def _noting(series: CacheSeries, cache: CacheParts) -> Callable[[bool], None]:
    """Notes what the cache was asked for, and how much it holds."""
    return lambda hit: series.asked(hit, cache.eviction.held)


def _learns(upstream: UpstreamSettings, asked: UpstreamParts) -> Callable[[], bool]:
    """Whether what the mirror is given is everybody's: where it has an account, all who come share it."""
    if upstream.account is not None:
        return lambda: True
    return lambda: not asked.privately() if upstream.public is None else upstream.public


def _cached(
    entry: str,
    registry: str,
    gateway: UpstreamGateway,
    filling: IRegistry,
    cache: CacheParts,
    clock: IReactorTime,
    ttl: Callable[[InRepository], float],
    changes: Generations,
) -> PullThrough:
    return PullThrough(
        gateway,
        LoginCache(entry, gateway, cache.documents, clock),
        ManifestCache(changes, gateway, cache.contents, cache.tags, clock, ttl),
        BlobCache(
            registry,
            gateway,
            ResumingRegistry(gateway, clock),
            filling,
            cache.contents,
            cache.downloads,
            changes,
        ),
        ListCache(entry, gateway, cache.documents, clock, ttl, changes),
    )
