"""The rules for retention, from the settings, and the images that policies need."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

from ..admission.lock_file import LockReader
from ..config.image_rules import RetentionSettings
from ..config.settings import Settings
from ..oci.digest import Digest
from ..oci.pull_rule import PullRule
from ..store.eviction.retention import Retention, RetentionRule


def make_retention(settings: Settings) -> Retention:
    """Return the rules; lock files are read whenever they are applied."""
    locks = [policy.lock for policy in settings.policy if policy.lock is not None]
    needed: Callable[[], Collection[Digest]] = partial(_read_locked, locks)
    return Retention([_make_rule(n, each) for n, each in enumerate(settings.retention, 1)], needed)


def _make_rule(number: int, rule: RetentionSettings) -> RetentionRule:
    return RetentionRule(
        f"retention rule {number}",
        PullRule.parse(rule.images),
        rule.unused,
        rule.tags,
        rule.quota,
        rule.repository_quota,
    )


def _read_locked(locks: Sequence[Path]) -> Collection[Digest]:
    """Return the digests in lock files, as they are now.

    :raises OSError: when one cannot be read; then nothing must be deleted by rules.
    """
    found: set[Digest] = set()
    for path in locks:
        found.update(each.digest for each in LockReader(path).current().images.values())
    return found
