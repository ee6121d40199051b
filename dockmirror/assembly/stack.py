"""The stack of one upstream: behaviour is added by wrapping one registry in another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IReactorTime

from ..config.settings import Settings, UpstreamSettings
from ..interfaces import IAccount, IRegistry
from ..oci.request import InRepository
from ..pullthrough.blobs import Blobs
from ..pullthrough.changes import Changes
from ..pullthrough.grants import GrantCache, PublicRepositories
from ..pullthrough.lists import Lists
from ..pullthrough.login_cache import LoginCache
from ..pullthrough.manifests import Manifests
from ..pullthrough.pushed import PushedBlobs
from ..pullthrough.registry import PullThrough
from ..pullthrough.upstream_gateway import PushProbeBypass, UpstreamGateway
from ..pullthrough.writethrough import WriteThrough
from ..registries.metered import Metered
from ..registries.noted import Popularity
from ..registries.segments import InSegments
from ..registries.whole import Whole
from ..status.series import Series
from ..upstream.sealed import Seals
from ..work.resting import Resting
from .cache import Cache
from .mirrored import AgentFor, Mirrored, mirrored
from .offered import Stack, offered, registry_names
from .ttl import tag_ttl
from .watched import Watched


def stack(
    name: str,
    upstream: UpstreamSettings,
    settings: Settings,
    agent_for: AgentFor,
    clock: IReactorTime,
    cache: Cache | None,
    watched: Watched,
    account: IAccount | None = None,
    keys: Sequence[bytes] = (),
) -> Stack:
    """The registries of this upstream, with a cache or without one.

    :param account: the mirror's own, where it has one; then clients' credentials are of no use.
    :param keys: see ``Seals``.
    """
    outcomes = watched.upstreams.of(name)
    asked = mirrored(name, upstream, agent_for, clock, watched.metrics, outcomes, account, keys)
    registry, writes = registry_names(upstream)[0], asked.writes
    if cache is None:
        relayed = asked.authorized if settings.shared(upstream) else asked.relayed
        served = Stack(Whole(relayed, clock), Whole(asked.authorized, clock))
    else:
        entry = entry_of(name, upstream)
        grants = GrantCache(clock)
        gateway = UpstreamGateway(
            asked.relayed,
            asked.authorized,
            grants,
            PublicRepositories(entry, cache.documents, clock, _learns(upstream, asked)),
            Resting(clock, asked.apart, outcomes.rest),
            clock,
            settings.keep_vanished,
        )
        filling = InSegments(gateway, upstream.segments, clock) if upstream.segments > 1 else gateway
        changes = Changes(registry, cache.documents, cache.deletions, clock)
        if writes is not None:
            cache.deletions.expect(registry)
            pushed = PushedBlobs(writes, changes, cache.contents, cache.pushed, Seals(keys, f"{name} copies"))
            writes = WriteThrough(pushed, changes, cache.contents, cache.tags, grants)
        cached = _cached(
            entry, registry, gateway, filling, cache, clock, tag_ttl(upstream, settings), changes
        )
        noting = _noting(watched.series, cache)
        existing = cached if writes is None else PushProbeBypass(cached, gateway)
        served = Stack(
            Metered(existing, name, watched.metrics, noting), Metered(cached, name, watched.metrics, noting)
        )
    virtual, own = (Popularity(each, registry, watched.popular) for each in (served.virtual, served.own))
    return offered(name, upstream, settings, Stack(virtual, own, writes))


def entry_of(name: str, upstream: UpstreamSettings) -> str:
    """By what it is kept what an upstream gives: what one account is given says nothing of another."""
    if upstream.account is None:
        return name
    return f"{name}+{hashlib.sha256(upstream.account.encode()).hexdigest()[:16]}"


def _noting(series: Series, cache: Cache) -> Callable[[bool], None]:
    """Notes what the cache was asked for, and how much it holds."""
    return lambda hit: series.asked(hit, cache.eviction.held)


def _learns(upstream: UpstreamSettings, asked: Mirrored) -> Callable[[], bool]:
    """Whether what the mirror is given is everybody's: where it has an account, all who come share it."""
    if upstream.account is not None:
        return lambda: True
    return lambda: not asked.privately() if upstream.public is None else upstream.public


def _cached(
    entry: str,
    registry: str,
    gateway: UpstreamGateway,
    filling: IRegistry,
    cache: Cache,
    clock: IReactorTime,
    ttl: Callable[[InRepository], float],
    changes: Changes,
) -> PullThrough:
    return PullThrough(
        gateway,
        LoginCache(entry, gateway, cache.documents, clock),
        Manifests(changes, gateway, cache.contents, cache.tags, clock, ttl),
        Blobs(registry, gateway, Whole(gateway, clock), filling, cache.contents, cache.downloads, changes),
        Lists(entry, gateway, cache.documents, clock, ttl, changes),
    )
