"""Policies and budgets that are valid key by key, and would not do what they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .explain import Problem
from .image_rules import BudgetSettings, PolicySettings

_TAG_RULES = ("min_age", "lock")
_DIGEST_RULES = ("signed_by", "hook", "platforms", "max_size", "media_types", "foreign_layers")
_NEEDS = {"digests": "min_age", "first_pull": "min_age", "exceptions": "min_age", "unlisted": "lock"}
"""The keys that say more about the rule of another key."""


def check_policies(policies: Sequence[PolicySettings]) -> Iterator[Problem]:
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


def check_budgets(budgets: Sequence[BudgetSettings]) -> Iterator[Problem]:
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
