"""The operator's policies for the images of one registry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from attrs import evolve, frozen

from ..config.image_rules import PolicyException, PolicySettings
from ..oci.pull_rule import PullRule
from ..oci.request import Manifest, Repository, Tags
from .admit import Subject

_TURNED_ON_BY = {"digests": "min_age"}
"""The keys that turn on the rules of other keys, which always have a value."""
_DIGEST = re.compile(r"sha(256|384|512):[0-9a-f]+")


@frozen
class Policies:
    """The policies, in the order of the settings.

    :ivar registry: the registry's name in images, such as docker.io.
    """

    registry: str
    _rules: Sequence[tuple[PullRule, PolicySettings]]

    @classmethod
    def of(cls, registry: str, policies: Sequence[PolicySettings]) -> Policies:
        """Return the policies for the images of a registry."""
        rules = [(_parse_pattern(each.images), each) for each in policies]
        return cls(registry, rules)

    def find(self, subject: Subject, key: str) -> PolicySettings | None:
        """Return the policy that holds for a kind of rule: the first one that matches and sets its key."""
        target = self._target(subject)
        for rule, policy in self._rules:
            if _sets(policy, key) and rule.covers(target):
                return policy
        return None

    def sets(self, key: str) -> bool:
        """Return whether any policy sets the key of a kind of rule and is not off."""
        return any(_sets(policy, key) and policy.mode != "off" for _, policy in self._rules)

    def find_exception(self, subject: Subject, policy: PolicySettings, now: float) -> PolicyException | None:
        """Return the exception that covers the subject, by its reference or its digest, or None."""
        today = datetime.fromtimestamp(now, UTC).date()
        for each in policy.exceptions:
            if each.until >= today and self._covers(each.image, subject):
                return each
        return None

    def _covers(self, image: str, subject: Subject) -> bool:
        if _DIGEST.fullmatch(image):
            return str(subject.digest) == image
        rule, target = _parse_pattern(image), self._target(subject)
        if rule.covers(target):
            return True
        return (
            subject.digest is not None
            and rule.digest is not None
            and rule.covers(evolve(target, reference=subject.digest))
        )

    def lock_files(self, subject: Subject) -> frozenset[Path]:
        """Return the lock files that hold for tags of the subject's repository."""
        tags = Tags(self.full_name(subject))
        return frozenset(
            policy.lock
            for rule, policy in self._rules
            if policy.lock is not None and policy.mode != "off" and rule.matches_repository(tags)
        )

    def full_name(self, subject: Subject) -> Repository:
        """Return the name of the subject's repository with its registry in front."""
        return Repository(f"{self.registry}/{subject.repository}")

    def _target(self, subject: Subject) -> Manifest:
        return Manifest(self.full_name(subject), subject.reference)


def _sets(policy: PolicySettings, key: str) -> bool:
    return getattr(policy, _TURNED_ON_BY.get(key, key)) is not None


def _parse_pattern(pattern: str) -> PullRule:
    """Parse a pattern of images; the colon before a registry's port is an underscore in its name."""
    path, slash, name = pattern.rpartition("/")
    return PullRule.parse(f"{path.replace(':', '_')}{slash}{name}")
