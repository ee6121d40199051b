"""The lower half of a stack: an upstream with or without a cache, or a cache alone if that is offline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime

from ..admission.recall_filter import RecallContext, RecallFilter
from ..admission.sightings import (
    PolledUpstream,
    PushSightings,
    SightingRegistry,
    SightingUpstream,
    TagRecorder,
)
from ..body.segmented import Line
from ..concurrency.backoff import RequestCircuitBreaker
from ..config.notation import AUTOMATIC, MAX_SEGMENTS
from ..config.settings import Settings, UpstreamSettings
from ..interfaces import IRegistry, ITokenService, IWritableRegistry
from ..middleware.blob_fetch import AdaptiveSegments, FixedSegments, ResumingRegistry, SegmentedFetch
from ..middleware.filters import NO_BUDGETS, Budgets
from ..middleware.observers import TokenObserver
from ..middleware.peers import PeerFetch
from ..oci.pull_rule import PullRule
from ..oci.request import InRepository
from ..pullthrough.authorization import GrantCache, PublicRepositories
from ..pullthrough.blobs import BlobCache, BlobRegistries
from ..pullthrough.generations import Generations
from ..pullthrough.manifests import ManifestCache, TagLifetime
from ..pullthrough.offline import LastKnownPublic, OfflineRegistry, OfflineUpstream
from ..pullthrough.prefetch import PER_UPSTREAM, PrefetchBudget, PrefetchRegistry
from ..pullthrough.pull_through import ListCache, LoginCache, PullThrough
from ..pullthrough.tag_refresh import RefreshContext, TagRefresher
from ..pullthrough.upstream_gateway import PushProbeBypass, UpstreamGateway
from ..pullthrough.write_through import PushCache, WriteThrough
from ..store.held_images import StoreListing
from ..upstream.registry_writer import LocationSigner
from .accounts import AccountChoice, Accounts
from .cache import CacheParts
from .history import History
from .telemetry import Telemetry
from .upstream_stack import AgentFor, UpstreamContext, UpstreamParts, make_peers, make_upstream

if TYPE_CHECKING:
    from ..admission.admission_registry import AdmissionContext
    from ..store.bucket.bucket_stores import NearBuckets


@frozen
class StackContext:
    """The parts of a process that all of its stacks share.

    :ivar cache: stores what is fetched; without one the mirror is a relay.
    :ivar history: reads the pulls; None if the mirror keeps no history.
    :ivar audit: writes an event to the audit log.
    :ivar budgets: limit what client networks may use of images.
    :ivar mirror_id: the mirror's identifier in ``CDN-Loop``; empty for one that serves no clients.
    """

    clock: IReactorTime
    agent_for: AgentFor
    telemetry: Telemetry
    cache: CacheParts | None = None
    history: History | None = None
    audit: Callable[[dict[str, str]], None] = lambda _: None
    mirror_id: str = ""
    budgets: Budgets = NO_BUDGETS

    @property
    def near_buckets(self) -> NearBuckets | None:
        """Copies of the bucket near clients; None without any."""
        return None if self.cache is None else self.cache.near_buckets

    def upstream(
        self, name: str, settings: UpstreamSettings, accounts: Accounts, signing_keys: Sequence[bytes]
    ) -> UpstreamContext:
        return UpstreamContext(
            name=name,
            settings=settings,
            agent_for=self.agent_for,
            clock=self.clock,
            metrics=self.telemetry.metrics,
            health=self.telemetry.upstreams.of(name),
            accounts=accounts,
            signing_keys=signing_keys,
            mirror_id=self.mirror_id,
        )


@frozen
class HostRegistries:
    """One upstream as its virtual host and as the mirror's own host serve it.

    :ivar tokens: the token service of the virtual host; the mirror's own host has none.
    :ivar choice: chooses among the mirror's accounts at the upstream.
    :ivar writes: accepts pushes to the virtual host; None if the upstream is read-only.
    :ivar admission: decides which manifests are served; None without policies.
    :ivar public: knows which repositories the upstream gives to everybody; None without a cache.
    :ivar polled: what the upstream's tags are polled by; None if they are not.
    :ivar refresher: refreshes its tags until it is stopped; None if nothing is refreshed.
    """

    virtual: IRegistry
    own: IRegistry
    tokens: ITokenService
    choice: AccountChoice
    writes: IWritableRegistry | None = None
    admission: AdmissionContext | None = None
    public: PublicRepositories | None = None
    polled: PolledUpstream | None = None
    refresher: TagRefresher | None = None


def build_base(upstream: UpstreamContext, settings: Settings, context: StackContext) -> HostRegistries:
    """Build the lower half of the stack: the cache over the upstream, or the upstream alone."""
    if settings.is_offline(upstream.settings):
        return _build_offline(upstream, settings, context)
    parts = make_upstream(upstream)
    if context.cache is not None:
        return _pull_through(upstream, parts, settings, context)
    assert not settings.policy  # see check_without_cache
    relayed = parts.authorized if settings.is_shared(upstream.settings) else parts.relayed
    virtual, own = (ResumingRegistry(each, context.clock) for each in (relayed, parts.authorized))
    return HostRegistries(virtual, own, parts.relayed, upstream.choice, writes=parts.writes)


def _build_offline(upstream: UpstreamContext, settings: Settings, context: StackContext) -> HostRegistries:
    """Build the registry over what the cache holds; nothing in it can connect to the upstream."""
    cache, clock, choice = context.cache, upstream.clock, upstream.choice
    assert cache is not None  # see check_without_cache
    is_public = upstream.settings.public
    public = LastKnownPublic(
        choice.cache_partition,
        cache.documents,
        clock,
        is_public is True,
        lambda repository: choice.has_account(repository) or is_public is not False,
    )
    listing = StoreListing(cache.root, cache.in_thread)
    held = OfflineRegistry(upstream.settings.canonical, cache.contents, cache.tags, listing, public, clock)
    nothing = OfflineUpstream()
    gateway = UpstreamGateway(
        nothing, nothing, GrantCache(clock), public, RequestCircuitBreaker(clock), clock
    )
    registry = _add_recall_filter(held, upstream, cache)
    tokens = TokenObserver(held, upstream.name, upstream.metrics)
    stack = HostRegistries(registry, registry, tokens, choice, public=public)
    if not settings.policy:
        return stack
    from .admission import make_admission

    admission = make_admission(upstream, settings, cache, gateway, context.audit)
    return evolve(stack, admission=admission.context)


def _pull_through(
    context: UpstreamContext, parts: UpstreamParts, settings: Settings, shared: StackContext
) -> HostRegistries:
    """Build the cache over an upstream: who may have what, and what is stored of manifests, blobs, lists."""
    assert shared.cache is not None
    name, upstream, clock, cache = context.name, context.settings, context.clock, shared.cache
    recorder = TagRecorder(name, cache.tag_history, clock)
    registry, choice = upstream.canonical, context.choice
    lifetime = make_tag_lifetime(upstream, settings)
    grants = GrantCache(clock)
    gateway = UpstreamGateway(
        SightingUpstream(parts.relayed, recorder),
        SightingRegistry(parts.authorized, recorder),
        grants,
        PublicRepositories(
            choice.cache_partition, cache.documents, clock, partial(parts.may_mark_public, context)
        ),
        RequestCircuitBreaker(clock, parts.breaker_key, context.health.record_pause, choice.choose_for),
        clock,
        settings.keep_deleted_upstream,
    )
    changes = Generations(registry, cache.documents, cache.deletions, clock)
    login = LoginCache(choice.cache_partition(), gateway, cache.documents, clock)
    tokens = TokenObserver(login, name, context.metrics)
    whole = gateway if upstream.segments == 1 else SegmentedFetch(gateway, _line(upstream, clock), clock)
    peers = make_peers(context, settings)

    def ask_peers(below: IRegistry) -> IRegistry:
        return PeerFetch(below, peers) if peers else below

    cached: IRegistry = PullThrough(
        gateway,
        login,
        ManifestCache(changes, gateway, cache.contents, cache.tags, clock, lifetime),
        BlobCache(
            registry,
            gateway,
            BlobRegistries(ResumingRegistry(gateway, clock), ask_peers(whole), ask_peers(gateway)),
            cache.contents,
            cache.downloads,
            changes,
        ),
        ListCache(choice.cache_partition, gateway, cache.documents, clock, lifetime.ttl, changes),
    )
    cached = refresher = make_tag_refresher(cached, context, lifetime, gateway, cache)
    cached = _add_recall_filter(cached, context, cache)
    if _has_prefetch(upstream, cache):
        budget = _prefetch_budget(context, cache)
        cached = PrefetchRegistry(
            cached, cache.contents, budget, clock, changes.store_name, shared.telemetry.prefetched
        )

    stack = HostRegistries(cached, cached, tokens, choice, public=gateway.public, refresher=refresher)
    if settings.policy:
        from .admission import make_admission

        admission = make_admission(context, settings, cache, gateway, shared.audit)
        stack = evolve(stack, admission=admission.context, polled=admission.polled)
    if parts.writes is None:
        return stack
    cache.deletions.expect(registry)
    signer = LocationSigner(context.signing_keys, f"{name} copies")
    pushes = PushCache(parts.writes, changes, cache.contents, cache.upload_staging, signer)
    sighted = PushSightings(pushes, recorder)  # below the wrapper that goes on if a client leaves
    writes = WriteThrough(sighted, changes, cache.contents, cache.tags, grants)
    return evolve(stack, virtual=PushProbeBypass(cached, gateway), writes=writes)


def _add_recall_filter(registry: IRegistry, upstream: UpstreamContext, cache: CacheParts) -> IRegistry:
    """Return the registry of an upstream without what was recalled."""
    name, admissions = upstream.name, upstream.metrics.admissions
    return RecallFilter(
        registry,
        RecallContext(
            cache.recalls.current,
            cache.deliveries,
            partial(cache.tag_history.sightings, name),
            lambda outcome: admissions.labels(name, "recall", outcome).inc(),
            upstream.clock,
        ),
    )


def _line(upstream: UpstreamSettings, clock: IReactorTime) -> Line:
    if upstream.segments == AUTOMATIC:
        return AdaptiveSegments(clock, upstream.connections, MAX_SEGMENTS)
    return FixedSegments(upstream.segments)


def _has_prefetch(upstream: UpstreamSettings, cache: CacheParts) -> bool:
    """Return what the settings say; unless they do, a mirror with a bucket does not prefetch."""
    return cache.bucket is None if upstream.prefetch is None else upstream.prefetch


def _prefetch_budget(context: UpstreamContext, cache: CacheParts) -> PrefetchBudget:
    """Return the budget of an upstream; one of its connections is left to clients."""
    fetched = context.metrics.prefetched_bytes.labels(context.name)
    wasted = context.metrics.wasted_bytes.labels(context.name)

    def count(fetched_bytes: int, wasted_bytes: int) -> None:
        fetched.inc(fetched_bytes)
        wasted.inc(wasted_bytes)

    transfers = min(PER_UPSTREAM, context.settings.connections - 1)
    return PrefetchBudget(context.clock, transfers, lambda: not cache.eviction.is_short, count)


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
            ttl=lifetime.ttl,
            is_ahead=context.settings.refresh_ahead,
            claim=cache.tag_locks.claim,
            open_circuit=gateway.open_circuit,
            account_of=context.choice.choose_for,
            count=count,
            clock=context.clock,
        ),
    )
