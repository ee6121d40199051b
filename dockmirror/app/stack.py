"""The stack of one upstream: each behaviour is a registry that wraps the one below it.

From the client down to the upstream:

    NamespaceFilter                      serves the names of this registry only (virtual host)
    ServiceAccountOnly or AnonymousOnly  rejects logins of clients (the latter on the own host)
    NameRewrite or ShortNameRedirect     completes names such as nginx (the latter on the virtual host)
    NameRewrite                          turns the client's names into those that the operator has set
    PullObserver                         records pulls for the history
    BudgetFilter                         limits what client networks may use of images
    RuleFilter                           applies the operator's allow and deny rules
    RequestObserver                      counts what the cache did, and what was sent
    AdmissionRegistry                    serves a manifest, another one in its place, or refuses (policies)
    NearRedirect                         sends clients to a copy of a blob near them (redirect)
    PushProbeBypass                      sends a pusher's existence checks upstream (virtual host)
    PrefetchRegistry                     fetches the layers that a client will ask for next
    RecallFilter                         refuses what was recalled, and cuts it off
    TagRefresher                         asks about tags in use before a client has to wait for that
    PullThrough                          serves what is stored, and stores what is fetched
    SightingUpstream                     records which digests tags name (with a cache)
    ResumingRegistry                     continues broken blobs, and withholds the tail of wrong ones
    AccountRouter                        chooses the mirror's account by the repository
    TokenRegistry                        asks with the mirror's own tokens (own host)
    Failover or FallbackMirror           asks the upstream's other addresses when the first one fails
    CorruptBlobQuarantine                refuses a blob at an address that sent wrong bytes for it
    UpstreamObserver                     records the health of an address, and its failures
    PrefixedUpstream                     asks below the path of the upstream's url
    UpstreamRegistry                     asks the upstream

Of an upstream that is offline, OfflineRegistry stands in the place of PullThrough and of all below it, and
there is neither a PushProbeBypass nor a PrefetchRegistry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime

from ..admission.admission_registry import AdmissionContext, AdmissionRegistry
from ..admission.sightings import (
    PolledUpstream,
    PushSightings,
    SightingRegistry,
    SightingUpstream,
    TagRecorder,
)
from ..body.line import AdaptiveSegments, FixedSegments, Line
from ..concurrency.backoff import RequestCircuitBreaker
from ..config.notation import AUTOMATIC, MAX_SEGMENTS
from ..config.settings import Settings, UpstreamSettings
from ..interfaces import IRegistry, ITokenService, IWritableRegistry
from ..middleware.blob_fetch import ResumingRegistry, SegmentedFetch
from ..middleware.budgets import NO_BUDGETS, BudgetFilter, Budgets
from ..middleware.login_filters import AnonymousOnly, ServiceAccountOnly
from ..middleware.names import (
    NameRewrite,
    NamespaceFilter,
    ScopeRewrite,
    ShortNameRedirect,
    WriteNameRewrite,
    WriteNamespaceFilter,
)
from ..middleware.near_redirect import NearRedirect
from ..middleware.observers import PullObserver, RequestObserver, TokenObserver
from ..middleware.rules import PullRules, RuleFilter, WriteRuleFilter
from ..oci.reference import Repository, complete_short_name, rewrite_prefix
from ..pullthrough.blobs import BlobCache
from ..pullthrough.generations import Generations
from ..pullthrough.grants import GrantCache, PublicRepositories
from ..pullthrough.list_cache import ListCache
from ..pullthrough.login_cache import LoginCache
from ..pullthrough.manifests import ManifestCache
from ..pullthrough.prefetch import PER_UPSTREAM, PrefetchBudget, PrefetchRegistry
from ..pullthrough.pull_through import PullThrough
from ..pullthrough.tag_refresh import TagRefresher
from ..pullthrough.upstream_gateway import PushProbeBypass, UpstreamGateway
from ..pullthrough.write_through import PushCache, WriteThrough
from ..upstream.registry_writer import LocationSigner
from .account_choice import AccountChoice
from .accounts import Accounts
from .admission import add_recall_filter, make_admission
from .cache import CacheParts
from .history import History
from .naming import name_at_upstream, registry_names
from .offline_stack import make_offline_stack
from .tag_lifetime import make_tag_lifetime, make_tag_refresher
from .telemetry import Telemetry
from .upstream_stack import AgentFor, UpstreamContext, UpstreamParts, make_upstream

if TYPE_CHECKING:
    from ..store.bucket.near_buckets import NearBuckets

T = TypeVar("T")
Layer = Callable[[IRegistry], IRegistry]
WriteLayer = Callable[[IWritableRegistry], IWritableRegistry]


@frozen
class StackContext:
    """The parts of a process that all of its stacks share.

    :ivar cache: stores what is fetched; without one the mirror is a relay.
    :ivar history: reads the pulls; None if the mirror keeps no history.
    :ivar audit: writes an event to the audit log.
    :ivar polled: what the tags of upstreams are polled by.
    :ivar choices: choose among the mirror's accounts at upstreams, by their names in the settings.
    :ivar refreshers: refresh the tags of upstreams; a reload stops them.
    :ivar budgets: limit what client networks may use of images.
    :ivar mirror_id: the mirror's identifier in ``CDN-Loop``; empty for one that serves no clients.
    """

    clock: IReactorTime
    agent_for: AgentFor
    telemetry: Telemetry
    cache: CacheParts | None = None
    history: History | None = None
    audit: Callable[[dict[str, str]], None] = lambda _: None
    polled: dict[str, PolledUpstream] = field(factory=dict)
    choices: dict[str, AccountChoice] = field(factory=dict)
    refreshers: list[TagRefresher] = field(factory=list)
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
            name,
            settings,
            self.agent_for,
            self.clock,
            self.telemetry.metrics,
            self.telemetry.upstreams.of(name),
            accounts,
            signing_keys,
            self.mirror_id,
        )


@frozen
class HostRegistries:
    """One upstream as its virtual host and as the mirror's own host serve it.

    :ivar tokens: the token service of the virtual host; the mirror's own host has none.
    :ivar writes: accepts pushes to the virtual host; None if the upstream is read-only.
    :ivar admission: decides which manifests are served; None without policies.
    :ivar public: knows which repositories the upstream gives to everybody; None without a cache.
    """

    virtual: IRegistry
    own: IRegistry
    tokens: ITokenService
    writes: IWritableRegistry | None = None
    admission: AdmissionContext | None = None
    public: PublicRepositories | None = None


def build_stack(
    name: str,
    settings: Settings,
    context: StackContext,
    accounts: Accounts = MappingProxyType({}),
    signing_keys: Sequence[bytes] = (),
) -> HostRegistries:
    """Build the registries of an upstream; each list runs from the client down to the upstream.

    :param accounts: the mirror's own accounts at the upstream; clients then share them and log in nowhere.
    :param signing_keys: the keys of ``LocationSigner``.
    """
    upstream, telemetry = settings.upstreams[name], context.telemetry
    names, is_shared = registry_names(upstream), settings.shared(upstream)
    has_rules = bool(upstream.allow or upstream.deny)
    upstream_context = context.upstream(name, upstream, accounts, signing_keys)
    context.choices[name] = upstream_context.choice
    base = _build_base(upstream_context, settings, context)

    def upstream_name(repository: Repository) -> Repository:
        return name_at_upstream(upstream, repository)

    def complete_names(below: IRegistry) -> IRegistry:
        return NameRewrite(below, complete_short_name)

    def rewrite_names(below: IRegistry) -> IRegistry:
        return NameRewrite(below, partial(rewrite_prefix, prefixes=upstream.rewrite))

    def allow_shared(below: IRegistry) -> IRegistry:
        return ServiceAccountOnly(below, names[0])

    def allow_anonymous(below: IRegistry) -> IRegistry:
        return AnonymousOnly(below, names[0], settings.host(name))

    def observe(below: IRegistry) -> IRegistry:
        return RequestObserver(below, name, telemetry.metrics)

    def record(below: IRegistry) -> IRegistry:
        assert telemetry.pulls is not None
        health = telemetry.upstreams.of(name)
        return PullObserver(
            below, names[0], telemetry.pulls, lambda: "docker.io" in names or bool(health.quotas)
        )

    def is_public(repository: Repository) -> bool:
        return not upstream_context.choice.has_account(repository)

    def redirect(below: IRegistry) -> IRegistry:
        assert context.near_buckets is not None
        return NearRedirect(below, is_public, context.near_buckets.find, telemetry.count_redirect)

    common: list[Layer] = [
        *_when(upstream.rewrite, rewrite_names),
        *_when(telemetry.pulls, record),
        *_when(context.budgets.budgets, lambda below: BudgetFilter(below, names[0], context.budgets)),
        *_when(has_rules, lambda below: RuleFilter(below, _pull_rules(name, upstream, "pulled"))),
        observe,
        *([] if base.admission is None else [partial(AdmissionRegistry, context=base.admission)]),
        *_when(context.near_buckets, redirect),
    ]
    virtual: list[Layer] = [
        lambda below: NamespaceFilter(below, names),
        *_when(is_shared, allow_shared),
        *_when(upstream.short_names == "complete", complete_names),
        *_when(upstream.short_names == "redirect", ShortNameRedirect),
        *common,
    ]
    own: list[Layer] = [
        allow_shared if is_shared else allow_anonymous,
        *_when(upstream.short_names != "off", complete_names),
        *common,
    ]
    writes: list[WriteLayer] = [
        lambda below: WriteNamespaceFilter(below, names),
        lambda below: WriteNameRewrite(below, upstream_name),
        *_when(has_rules, lambda below: WriteRuleFilter(below, _pull_rules(name, upstream, "pushed"))),
    ]
    return HostRegistries(
        _wrap(virtual, base.virtual),
        _wrap(own, base.own),
        ServiceAccountOnly(base.virtual, names[0]) if is_shared else ScopeRewrite(base.tokens, upstream_name),
        None if base.writes is None else _wrap(writes, base.writes),
        public=base.public,
    )


def _when(condition: object, layer: T) -> list[T]:
    return [layer] if condition else []


def _wrap(layers: Sequence[Callable[[T], T]], registry: T) -> T:
    """Wrap a registry in layers, of which the first is the outermost."""
    for layer in reversed(layers):
        registry = layer(registry)
    return registry


def _build_base(upstream: UpstreamContext, settings: Settings, context: StackContext) -> HostRegistries:
    """Build the lower half of the stack: the cache over the upstream, or the upstream alone."""
    if settings.is_offline(upstream.settings):
        return _build_offline(upstream, settings, context)
    parts = make_upstream(upstream)
    if context.cache is not None:
        return _pull_through(upstream, parts, settings, context)
    assert not settings.policy  # see check_without_cache
    relayed = parts.authorized if settings.shared(upstream.settings) else parts.relayed
    virtual, own = (ResumingRegistry(each, context.clock) for each in (relayed, parts.authorized))
    return HostRegistries(virtual, own, parts.relayed, parts.writes)


def _build_offline(upstream: UpstreamContext, settings: Settings, context: StackContext) -> HostRegistries:
    """Build the cache of an upstream that is not asked, neither by clients nor by polling."""
    assert context.cache is not None  # see check_without_cache
    stack = make_offline_stack(upstream, settings, context.cache, context.audit)
    return HostRegistries(
        stack.registry, stack.registry, stack.tokens, admission=stack.admission, public=stack.public
    )


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
        PublicRepositories(choice.cache_partition, cache.documents, clock, _may_mark_public(context, parts)),
        RequestCircuitBreaker(clock, parts.breaker_key, context.health.record_pause, choice.choose_for),
        clock,
        settings.keep_deleted_upstream,
    )
    changes = Generations(registry, cache.documents, cache.deletions, clock)
    login = LoginCache(choice.cache_partition(), gateway, cache.documents, clock)
    tokens = TokenObserver(login, name, context.metrics)
    cached: IRegistry = PullThrough(
        gateway,
        login,
        ManifestCache(changes, gateway, cache.contents, cache.tags, clock, lifetime),
        BlobCache(
            registry,
            gateway,
            ResumingRegistry(gateway, clock),
            gateway if upstream.segments == 1 else SegmentedFetch(gateway, _line(upstream, clock), clock),
            cache.contents,
            cache.downloads,
            changes,
        ),
        ListCache(choice.cache_partition, gateway, cache.documents, clock, lifetime.ttl, changes),
    )
    cached = refresher = make_tag_refresher(cached, context, lifetime, gateway, cache)
    shared.refreshers.append(refresher)
    cached = add_recall_filter(cached, context, cache)
    if _has_prefetch(upstream, cache):
        budget = _prefetch_budget(context, cache)
        cached = PrefetchRegistry(cached, cache.contents, budget, clock, changes.store_name)

    admission = make_admission(context, settings, cache, gateway, shared.audit)
    shared.polled[name] = admission.polled
    decisions = admission.context if settings.policy else None
    if parts.writes is None:
        return HostRegistries(cached, cached, tokens, admission=decisions, public=gateway.public)
    cache.deletions.expect(registry)
    signer = LocationSigner(context.signing_keys, f"{name} copies")
    pushes = PushCache(parts.writes, changes, cache.contents, cache.upload_staging, signer)
    return HostRegistries(
        PushProbeBypass(cached, gateway),
        cached,
        tokens,
        PushSightings(WriteThrough(pushes, changes, cache.contents, cache.tags, grants), recorder),
        decisions,
        gateway.public,
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


def _pull_rules(name: str, upstream: UpstreamSettings, action: str) -> PullRules:
    return PullRules(f"upstreams.{name}", upstream.allow, upstream.deny, action)


def _may_mark_public(context: UpstreamContext, parts: UpstreamParts) -> Callable[[Repository], bool]:
    """Return a function that tells if an anonymous answer makes content of a repository public.

    All clients share an account of the mirror's own, so what it may read counts as public among them.
    """
    stated = context.settings.public

    def may_mark_public(repository: Repository) -> bool:
        if context.choice.has_account(repository):
            return True
        return not parts.is_private() if stated is None else stated

    return may_mark_public
