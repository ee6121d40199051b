"""Tags as the settings want them: for how long they are fresh, and who asks about them again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..config.settings import Settings, UpstreamSettings
from ..interfaces import IRegistry
from ..oci.pull_rule import PullRule
from ..oci.request import InRepository
from ..pullthrough.manifests import TagLifetime
from ..pullthrough.tag_refresh import RefreshContext, TagRefresher
from ..pullthrough.upstream_gateway import UpstreamGateway
from .cache import CacheParts
from .upstream_stack import UpstreamContext


def make_tag_lifetime(upstream: UpstreamSettings, settings: Settings) -> TagLifetime:
    """Return the lifetime of an upstream's tags; none is served stale for what clients write to."""
    own = upstream.stale_while_revalidate
    stale = settings.stale_while_revalidate if own is None else own
    return TagLifetime(make_tag_ttl(upstream, settings), 0.0 if upstream.writes else stale)


def make_tag_ttl(upstream: UpstreamSettings, settings: Settings) -> Callable[[InRepository], float]:
    """Return a function that gives the TTL of a tag or a tag list, in seconds.

    The first pattern that matches wins, in the order of the settings; without one, the global TTL counts.  A
    tag list is matched by patterns of whole repositories.
    """
    rules = [(PullRule.parse(pattern), seconds) for pattern, seconds in upstream.tag_ttl.items()]

    def tag_ttl(target: InRepository) -> float:
        return next((seconds for rule, seconds in rules if rule.covers(target)), settings.tag_ttl)

    return tag_ttl


def make_tag_refresher(
    cached: IRegistry,
    context: UpstreamContext,
    lifetime: TagLifetime,
    gateway: UpstreamGateway,
    cache: CacheParts,
) -> TagRefresher:
    """Return the refresher of an upstream's tags in front of its cache."""
    refreshes: Callable[[str], Any] = partial(context.metrics.tag_refreshes.labels, context.name)

    def count(outcome: str) -> None:
        refreshes(outcome).inc()

    return TagRefresher(
        cached,
        RefreshContext(
            lifetime.ttl,
            context.settings.refresh_ahead,
            cache.tag_locks.claim,
            gateway.open_circuit,
            context.choice.choose_for,
            count,
            context.clock,
        ),
    )
