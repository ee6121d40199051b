"""Settings that are valid key by key, and contradict each other or would not do what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..oci.pull_rule import is_covered
from .explain import Problem
from .image_rules import BudgetSettings, PolicySettings
from .settings import Settings, UpstreamSettings

_TAG_RULES = ("min_age", "lock")
_DIGEST_RULES = ("signed_by", "hook", "platforms", "max_size", "media_types", "foreign_layers")
_NEEDS = {"digests": "min_age", "first_pull": "min_age", "exceptions": "min_age", "unlisted": "lock"}
"""The keys that say more about the rule of another key."""


def find_contradictions(settings: Settings) -> Iterator[Problem]:
    """Yield all problems of that kind."""
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
