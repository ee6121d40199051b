"""Settings that are valid key by key, and contradict each other or can hardly be meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..oci.pull_rule import has_wildcards, is_covered
from .explain import Problem
from .field_types import suggest
from .image_rules import BudgetSettings, PolicySettings, RetentionSettings
from .notation import format_duration, format_size
from .settings import Settings, UpstreamSettings

_TAG_RULES = ("min_age", "lock")
_DIGEST_RULES = ("signed_by", "hook", "platforms", "max_size", "media_types", "foreign_layers")
_NEEDS = {"digests": "min_age", "first_pull": "min_age", "exceptions": "min_age", "unlisted": "lock"}
"""The keys that say more about the rule of another key."""
_SMALLEST_SIZE = 1_000_000
"""Bytes below which hardly any image fits."""
_UNIT = "a number without a unit is in seconds"
_LONGEST_GRACE = 86_400.0
_LONGEST_TTL = 30 * 86_400.0
_SHORTEST_AGE = 60.0


def find_contradictions(settings: Settings) -> Iterator[Problem]:
    """Yield the settings that contradict each other, or would not do what they say."""
    yield from _check_prefixes(settings.upstreams)
    yield from _check_registries(settings.upstreams)
    yield from _check_accounts(settings.upstreams)
    yield from _check_shared_accounts(settings)
    yield from _check_keys_path(settings)
    yield from _check_writes(settings)
    yield from _check_accel(settings)
    yield from _check_policies(settings.policy)
    yield from _check_budgets(settings.budget)


def _check_prefixes(upstreams: Mapping[str, UpstreamSettings]) -> Iterator[Problem]:
    """Reject upstreams below a path of another registry that do not say whose images they have."""
    for name, upstream in upstreams.items():
        if not upstream.registry and any(each.prefix for each in upstream.by_address()):
            yield Problem(
                ("upstreams", name, "url"),
                "has a path; expected 'registry' beside it, the name by which images are pulled, such as"
                " docker.io",
            )


def _check_registries(upstreams: Mapping[str, UpstreamSettings]) -> Iterator[Problem]:
    """Reject upstreams that share a registry's name in the store without being the same registry.

    All clients of that name are served the same cached contents.
    """
    declared = list(_check_same_registry_as(upstreams))
    if declared:
        yield from declared
        return
    named: set[str] = set()
    for name, upstream in upstreams.items():
        same = _find_same_registry(name, upstreams)
        named.add(name)
        for another, its in upstreams.items():
            if its.canonical == upstream.canonical and another not in same | named:
                yield Problem(
                    ("upstreams", another, "url"),
                    f"differs from that of 'upstreams.{name}', which has the same registry"
                    f" {upstream.canonical}: contents of one would be served for the other. Expected"
                    " another 'registry', or, when both addresses lead to the same registry,"
                    f" 'same_registry_as = \"{name}\"'",
                )


def _check_same_registry_as(upstreams: Mapping[str, UpstreamSettings]) -> Iterator[Problem]:
    for name, upstream in upstreams.items():
        other = upstreams.get(upstream.same_registry_as or name)
        if other is None or other.canonical != upstream.canonical:
            message = f"expected the name of another upstream with the registry {upstream.canonical}"
            yield Problem(("upstreams", name, "same_registry_as"), message)


def _find_same_registry(name: str, upstreams: Mapping[str, UpstreamSettings]) -> set[str]:
    """Return all upstreams that are the same registry as this one, by declaration or by equal urls."""
    same, found = set(), {name}
    while found:
        same |= found
        found = {
            each
            for each, its in upstreams.items()
            if each not in same and any(_are_same(each, its, other, upstreams[other]) for other in same)
        }
    return same


def _are_same(name: str, one: UpstreamSettings, other_name: str, other: UpstreamSettings) -> bool:
    if one.canonical != other.canonical:
        return False
    return one.urls == other.urls or one.same_registry_as == other_name or other.same_registry_as == name


def _check_accounts(upstreams: Mapping[str, UpstreamSettings]) -> Iterator[Problem]:
    """Reject accounts that share a name, have no login or two, or have a pattern that is never used."""
    for name, upstream in upstreams.items():
        earlier: list[str] = []
        names: set[str] = set()
        for number, account in enumerate(upstream.accounts):
            path = ("upstreams", name, "accounts", str(number))
            if account.name in names:
                yield Problem((*path, "name"), f"another account is named {account.name!r}, too")
            if (account.username is None) == (account.credential_helper is None):
                yield Problem(path, "expected either 'username' or 'credential_helper'")
            for pattern in account.repositories:
                if is_covered(pattern, earlier):
                    yield Problem(
                        (*path, "repositories"),
                        f"{pattern!r} matches nothing that an earlier pattern does not match; the first"
                        " account that matches holds",
                    )
                earlier.append(pattern)
            names.add(account.name)


def _check_shared_accounts(settings: Settings) -> Iterator[Problem]:
    shared = {name: upstream for name, upstream in settings.upstreams.items() if upstream.has_accounts}
    if shared and settings.access.htpasswd is None and "networks" not in settings.model_fields_set:
        name, upstream = next(iter(shared.items()))
        keys = ("username", "credential_helper", "accounts")
        key = next(each for each in keys if getattr(upstream, each))
        yield Problem(
            ("networks",),
            f"is missing: every client that reaches the mirror can pull from {name} with the"
            f" account of 'upstreams.{name}.{key}'. Name the networks, or the users in 'access.htpasswd'",
        )


def _check_keys_path(settings: Settings) -> Iterator[Problem]:
    keys, cache = settings.access.keys, settings.cache
    if keys is not None and cache is not None and keys.resolve().is_relative_to(cache.resolve()):
        yield Problem(("access", "keys"), "expected a file outside the cache directory")


def _check_accel(settings: Settings) -> Iterator[Problem]:
    if settings.accel == "nginx" and not settings.trust_proxy:
        yield Problem(("accel",), "needs 'trust_proxy', the address that nginx connects from")
    if settings.accel == "nginx" and settings.cache_group is None:
        yield Problem(("accel",), "needs 'cache_group', a group that nginx's user belongs to")


def _check_writes(settings: Settings) -> Iterator[Problem]:
    """Reject writes with other credentials than the client's own, and beside tags that may be stale."""
    for name, upstream in settings.upstreams.items():
        path = ("upstreams", name, "writes")
        if upstream.writes and settings.access.htpasswd is not None:
            yield Problem(
                path,
                "cannot be combined with 'access.htpasswd': a registry needs the client's own credentials"
                " for a push",
            )
        if upstream.writes and upstream.stale_while_revalidate:
            yield Problem(
                path,
                f"cannot be combined with 'upstreams.{name}.stale_while_revalidate': a tag must name what was"
                " pushed at once",
            )
        if upstream.writes and upstream.has_accounts:
            yield Problem(
                path,
                f"cannot be combined with the mirror's own account in 'upstreams.{name}': a push needs the"
                " client's own credentials",
            )


def _check_policies(policies: Sequence[PolicySettings]) -> Iterator[Problem]:
    """Yield the problems of policies whose rules can never hold, or would not hold for most pulls."""
    for number, policy in enumerate(policies):
        path = ("policy", str(number))
        lacking = {key: needed for key, needed in _NEEDS.items() if _is_lacking(policy, key, needed)}
        for key, needed in lacking.items():
            yield Problem((*path, key), f"needs {needed!r} in the same policy")
        rules = [key for key in (*_TAG_RULES, *_DIGEST_RULES) if getattr(policy, key) is not None]
        if not rules and not lacking:
            yield Problem(path, f"has no rule: expected one of {', '.join((*_TAG_RULES, *_DIGEST_RULES))}")
        yield from _check_tag_pattern(path, policy)


def _check_budgets(budgets: Sequence[BudgetSettings]) -> Iterator[Problem]:
    """Yield the problems of budgets that limit nothing."""
    for number, budget in enumerate(budgets):
        if budget.requests is None and budget.bytes is None and budget.pulls is None:
            yield Problem(("budget", str(number)), "has no limit: expected one of requests, bytes, pulls")


def _is_lacking(policy: PolicySettings, key: str, needed: str) -> bool:
    """Return whether a key is set to another value than its default, without the key that it needs."""
    default = PolicySettings.model_fields[key].default
    return getattr(policy, key) != default and getattr(policy, needed) is None


def _check_tag_pattern(path: tuple[str, str], policy: PolicySettings) -> Iterator[Problem]:
    """Reject a pattern of tags for rules that judge digests: clients resolve a tag, and pull by digest."""
    parents, slash, name = policy.images.rpartition("/")
    if "@" in name or ":" not in name:
        return
    rules = [key for key in _DIGEST_RULES if getattr(policy, key) is not None]
    if policy.digests == "known":
        rules.append("digests")
    if rules:
        repository = f"{parents}{slash}{name.partition(':')[0]}"
        yield Problem(
            (*path, "images"),
            f"{policy.images!r} names tags, but {_join(rules)} would not hold for pulls by digest, as most"
            f" clients make them: expected the repository, {repository!r}",
        )


def _join(keys: Sequence[str]) -> str:
    return " and ".join(repr(key) for key in keys)


def question_settings(settings: Settings, disk: int | None) -> Iterator[str]:
    """Yield a sentence with the key for each value that can hardly be meant.

    :param disk: the size in bytes of the file system that the cache lies on, or None if it is unknown.
    """
    yield from _question_sizes(settings)
    if disk:
        yield from _question_disk(settings, disk)
    if settings.grace > _LONGEST_GRACE:
        yield f"grace: a stop may take {format_duration(settings.grace)}; {_UNIT}"
    ttls = {"tag_ttl": settings.tag_ttl}
    for name, upstream in settings.upstreams.items():
        ttls |= {f"upstreams.{name}.tag_ttl.{rule}": seconds for rule, seconds in upstream.tag_ttl.items()}
    for key, ttl in ttls.items():
        if ttl > _LONGEST_TTL:
            yield f"{key}: tags may be {format_duration(ttl)} old; {_UNIT}"
    yield from _question_staleness(settings)
    yield from _question_registries(settings)
    yield from _question_ages(settings)


def _question_registries(settings: Settings) -> Iterator[str]:
    """Question patterns for a registry that no upstream has; it may be added later."""
    known = [upstream.canonical for upstream in settings.upstreams.values()]
    listed: Mapping[str, Sequence[PolicySettings | BudgetSettings | RetentionSettings]] = {
        "policy": settings.policy, "budget": settings.budget, "retention": settings.retention
    }  # fmt: skip
    patterns = {
        f"{kind}.{number}.images": each.images
        for kind, tables in listed.items()
        for number, each in enumerate(tables)
    }
    for key, pattern in patterns.items():
        registry, slash, _ = pattern.partition("/")
        if slash and not has_wildcards(registry) and registry.replace(":", "_") not in known:
            yield (
                f"{key}: no upstream has the registry {registry!r}, so the pattern matches"
                f" nothing{suggest(registry, known)}"
            )


def _question_ages(settings: Settings) -> Iterator[str]:
    """Question a cool-down that ends before anybody could have looked at an image."""
    for number, policy in enumerate(settings.policy):
        if policy.min_age is not None and policy.min_age < _SHORTEST_AGE:
            yield f"policy.{number}.min_age: a tag waits for {format_duration(policy.min_age)} only; {_UNIT}"


def _question_staleness(settings: Settings) -> Iterator[str]:
    """Question times for which stale tags are served that are longer than those for which they are fresh."""
    seconds = {"stale_while_revalidate": (settings.stale_while_revalidate, settings.tag_ttl)}
    for name, upstream in settings.upstreams.items():
        own = upstream.stale_while_revalidate
        if own is not None:
            ttl = max(upstream.tag_ttl.values(), default=settings.tag_ttl)
            seconds[f"upstreams.{name}.stale_while_revalidate"] = own, ttl
    for key, (stale, ttl) in seconds.items():
        if stale > ttl:
            yield (
                f"{key}: {format_duration(stale)} are more than tag_ttl, {format_duration(ttl)}: tags are"
                " stale for longer than they are fresh"
            )


def _question_sizes(settings: Settings) -> Iterator[str]:
    sizes = {
        "cache_size": settings.cache_size.bytes if settings.cache_size else 0,
        "min_free": settings.min_free.bytes if settings.min_free else 0,
        "access.bytes": settings.access.bytes or 0,
    }
    for key, size in sizes.items():
        if 0 < size < _SMALLEST_SIZE:
            yield f'{key}: {size} bytes are less than any image has; is "{size}GB" meant?'


def _question_disk(settings: Settings, disk: int) -> Iterator[str]:
    size, free = settings.cache_size, settings.min_free.of(disk) if settings.min_free else 0
    if size and size.bytes > disk:
        yield f"cache_size: {format_size(size.bytes)} are more than the disk has, {format_size(disk)}"
    if free >= disk:
        yield (
            f"min_free: {format_size(free)} are all that the disk has, {format_size(disk)}: the cache keeps"
            " nothing"
        )
