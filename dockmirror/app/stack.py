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
    PeerFetch                            fetches a blob from the fleet's mirror for it (peers)
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
from typing import TypeVar

from attrs import evolve

from ..config.settings import Settings, UpstreamSettings
from ..interfaces import IRegistry, IWritableRegistry
from ..middleware.filters import (
    AnonymousOnly,
    BudgetFilter,
    PullRules,
    RuleFilter,
    ServiceAccountOnly,
    WriteRuleFilter,
)
from ..middleware.names import (
    NameRewrite,
    NamespaceFilter,
    ScopeRewrite,
    ShortNameRedirect,
    WriteNameRewrite,
    WriteNamespaceFilter,
)
from ..middleware.near_redirect import NearRedirect
from ..middleware.observers import PullObserver, RequestObserver
from ..oci.request import Repository, complete_short_name, rewrite_prefix
from .accounts import Accounts
from .cache_stack import HostRegistries, StackContext, build_base
from .naming import name_at_upstream, registry_names

T = TypeVar("T")
Layer = Callable[[IRegistry], IRegistry]
WriteLayer = Callable[[IWritableRegistry], IWritableRegistry]


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
    names, is_shared = registry_names(upstream), settings.is_shared(upstream)
    has_rules = bool(upstream.allow or upstream.deny)
    upstream_context = context.upstream(name, upstream, accounts, signing_keys)
    base = build_base(upstream_context, settings, context)

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

    def admit(below: IRegistry) -> IRegistry:
        from ..admission.admission_registry import AdmissionRegistry

        assert base.admission is not None
        return AdmissionRegistry(below, base.admission)

    def is_public(repository: Repository) -> bool:
        return not base.choice.has_account(repository)

    def redirect(below: IRegistry) -> IRegistry:
        assert context.near_buckets is not None
        return NearRedirect(below, is_public, context.near_buckets.find, telemetry.count_redirect)

    common: list[Layer] = [
        *_when(upstream.rewrite, rewrite_names),
        *_when(telemetry.pulls, record),
        *_when(context.budgets.budgets, lambda below: BudgetFilter(below, names[0], context.budgets)),
        *_when(has_rules, lambda below: RuleFilter(below, _pull_rules(name, upstream, "pulled"))),
        observe,
        *_when(base.admission, admit),
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
    return evolve(
        base,
        virtual=_wrap(virtual, base.virtual),
        own=_wrap(own, base.own),
        tokens=ServiceAccountOnly(base.virtual, names[0])
        if is_shared
        else ScopeRewrite(base.tokens, upstream_name),
        writes=None if base.writes is None else _wrap(writes, base.writes),
    )


def _when(condition: object, layer: T) -> list[T]:
    return [layer] if condition else []


def _wrap(layers: Sequence[Callable[[T], T]], registry: T) -> T:
    """Wrap a registry in layers, of which the first is the outermost."""
    for layer in reversed(layers):
        registry = layer(registry)
    return registry


def _pull_rules(name: str, upstream: UpstreamSettings, action: str) -> PullRules:
    return PullRules(f"upstreams.{name}", upstream.allow, upstream.deny, action)
