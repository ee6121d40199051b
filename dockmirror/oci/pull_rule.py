"""Patterns of repositories, and of their tags or digests."""

from __future__ import annotations

import re

from attrs import frozen

from .reference import Reference, Tag
from .request import Blob, InRepository, Manifest, Referrers, Tags

_WORDS = re.compile(r"\*\*|\*|\?|[^*?]+")
_WILDCARDS = frozenset("*?")
_GLOBS = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


def _compile(glob: str) -> re.Pattern[str]:
    """Compile a glob, in which ``**`` matches slashes and ``*`` and ``?`` do not."""
    return re.compile("".join(_GLOBS.get(word) or re.escape(word) for word in _WORDS.findall(glob)))


def has_wildcards(glob: str) -> bool:
    return not _WILDCARDS.isdisjoint(glob)


@frozen
class PullRule:
    """A pattern of repositories, of their tags, or of their digests."""

    repository: re.Pattern[str]
    tag: re.Pattern[str] | None = None
    digest: re.Pattern[str] | None = None

    @classmethod
    def parse(cls, pattern: str) -> PullRule:
        """Parse ``repository``, ``repository:tag`` or ``repository@digest``."""
        repository, at, digest = pattern.partition("@")
        if at:
            return cls(_compile(repository), digest=_compile(digest))
        repository, colon, tag = pattern.partition(":")
        return cls(_compile(repository), tag=_compile(tag) if colon else None)

    @property
    def covers_all(self) -> bool:
        """True if it covers all contents of its repositories."""
        return self.tag is None and self.digest is None

    def matches_repository(self, target: InRepository) -> bool:
        """Return whether the rule's pattern matches the target's repository."""
        return self.repository.fullmatch(target.repository.name) is not None

    def covers(self, target: InRepository) -> bool:
        """Return whether the rule covers the target: the whole repository, its tag or its digest."""
        if not self.matches_repository(target) or self.covers_all:
            return self.matches_repository(target)
        reference = reference_of(target)
        pattern = self.tag if isinstance(reference, Tag) else self.digest
        return reference is not None and pattern is not None and pattern.fullmatch(str(reference)) is not None

    def may_need(self, target: InRepository) -> bool:
        """Return whether a pull that the rule allows may need the target.

        The content of a tag, and what that refers to, is fetched by digest.
        """
        if not isinstance(target, Manifest):
            return self.matches_repository(target)
        return self.covers(target) or (
            target.digest is not None and self.tag is not None and self.matches_repository(target)
        )


def reference_of(target: InRepository) -> Reference | None:
    """Return the reference of the target; None for the list of tags."""
    match target:
        case Manifest():
            return target.reference
        case Blob() | Referrers():
            return target.digest
        case Tags():
            return None
