"""The registry of an upstream that the operator has set offline: the cache, with nothing behind it."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from ..admission.admission_registry import AdmissionContext
from ..concurrency.backoff import RequestCircuitBreaker
from ..config.settings import Settings
from ..interfaces import IRegistry, ITokenService
from ..middleware.observers import TokenObserver
from ..pullthrough.grants import GrantCache, PublicRepositories
from ..pullthrough.offline import LastKnownPublic, OfflineRegistry, OfflineUpstream
from ..pullthrough.upstream_gateway import UpstreamGateway
from ..store.held_images import StoreListing
from .admission import add_recall_filter, make_admission
from .cache import CacheParts
from .upstream_stack import UpstreamContext


@frozen
class OfflineStack:
    """The lower half of the stack of an upstream that is not asked.

    :ivar admission: decides which manifests are served; None without policies.
    :ivar public: knows which repositories were public when the upstream was last asked.
    """

    registry: IRegistry
    tokens: ITokenService
    admission: AdmissionContext | None
    public: PublicRepositories


def make_offline_stack(
    context: UpstreamContext,
    settings: Settings,
    cache: CacheParts,
    audit: Callable[[dict[str, str]], None],
) -> OfflineStack:
    """Make the registry over what the cache holds; nothing in it can connect to the upstream.

    :param audit: writes an event to the audit log.
    """
    name, upstream, clock = context.name, context.settings, context.clock
    registry = upstream.canonical
    choice = context.choice
    public = LastKnownPublic(
        choice.cache_partition,
        cache.documents,
        clock,
        upstream.public is True,
        lambda repository: choice.has_account(repository) or upstream.public is not False,
    )
    held = OfflineRegistry(
        registry, cache.contents, cache.tags, StoreListing(cache.root, cache.in_thread), public, clock
    )
    nothing = OfflineUpstream()
    gateway = UpstreamGateway(
        nothing, nothing, GrantCache(clock), public, RequestCircuitBreaker(clock), clock
    )
    admission = make_admission(context, settings, cache, gateway, audit).context if settings.policy else None
    return OfflineStack(
        add_recall_filter(held, context, cache),
        TokenObserver(held, name, context.metrics),
        admission,
        public,
    )
