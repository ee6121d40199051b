"""What clients are offered of an upstream: by which names, how much of it, and what a login is good for."""

from __future__ import annotations

from urllib.parse import urlsplit

from attrs import evolve, frozen

from ..config.settings import Settings, UpstreamSettings
from ..interfaces import IRegistry, IWritableRegistry
from ..middleware.names import (
    NamespaceFilter,
    PrefixRewrite,
    ShortNameRedirect,
    ShortNames,
    WriteNameRewrite,
    WriteNamespaceFilter,
    complete_short_name,
    rewrite_prefix,
)
from ..middleware.registry_router import AnonymousOnly
from ..middleware.rules import PullRules, RuleFilter, WriteRuleFilter
from ..middleware.service_account import ServiceAccountOnly
from ..oci.reference import Repository


@frozen
class HostRegistries:
    """One upstream, as its virtual host and as the mirror's own host serve it.

    :ivar writes: as the virtual host is written to, where it may be.
    """

    virtual: IRegistry
    own: IRegistry
    writes: IWritableRegistry | None = None


def registry_names(upstream: UpstreamSettings) -> list[str]:
    """What a registry is called, its canonical name first: as a path's part a port is joined by ``_``."""
    netloc = urlsplit(upstream.url).netloc
    return list(
        dict.fromkeys([upstream.canonical, *upstream.aliases, *([] if upstream.registry else [netloc])])
    )


def client_facing(
    name: str, upstream: UpstreamSettings, settings: Settings, served: HostRegistries
) -> HostRegistries:
    """The registries of an upstream as its clients have them."""
    virtual, own = _chosen(name, upstream, served.virtual), _chosen(name, upstream, served.own)
    named = _named(upstream, HostRegistries(virtual, own))
    stack = _for_clients(upstream, settings.host(name), settings.shared(upstream), named)
    return stack if served.writes is None else evolve(stack, writes=_writes(name, upstream, served.writes))


def _chosen(name: str, upstream: UpstreamSettings, registry: IRegistry) -> IRegistry:
    """What may be pulled is said of the names by which the upstream is asked."""
    if upstream.allow or upstream.deny:
        registry = RuleFilter(registry, _rules(name, upstream, "pulled"))
    return PrefixRewrite(registry, upstream.rewrite) if upstream.rewrite else registry


def _rules(name: str, upstream: UpstreamSettings, done: str) -> PullRules:
    return PullRules(f"upstreams.{name}", upstream.allow, upstream.deny, done)


def _writes(name: str, upstream: UpstreamSettings, writes: IWritableRegistry) -> IWritableRegistry:
    """What is written goes by the same names, and by the same rules."""
    if upstream.allow or upstream.deny:
        writes = WriteRuleFilter(writes, _rules(name, upstream, "pushed"))

    def asked(repository: Repository) -> Repository:
        whole = repository if upstream.short_names == "off" else complete_short_name(repository)
        return rewrite_prefix(whole, upstream.rewrite)

    return WriteNamespaceFilter(WriteNameRewrite(writes, asked), registry_names(upstream))


def _named(upstream: UpstreamSettings, served: HostRegistries) -> HostRegistries:
    """Short names are completed on the own host whatever the virtual host does."""
    names = {"complete": ShortNames, "redirect": ShortNameRedirect, "off": _same}
    return HostRegistries(
        names[upstream.short_names](served.virtual),
        served.own if upstream.short_names == "off" else ShortNames(served.own),
    )


def _same(registry: IRegistry) -> IRegistry:
    return registry


def _for_clients(
    upstream: UpstreamSettings, host: str, shared: bool, served: HostRegistries
) -> HostRegistries:
    """What clients' credentials are good for: relayed on the virtual host, unless all share the mirror's."""
    names = registry_names(upstream)
    if shared:
        return HostRegistries(
            NamespaceFilter(ServiceAccountOnly(served.virtual, names[0]), names),
            ServiceAccountOnly(served.own, names[0]),
        )
    return HostRegistries(NamespaceFilter(served.virtual, names), AnonymousOnly(served.own, names[0], host))
