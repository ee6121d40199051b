"""Patterns of repositories and of their tags or digests; ranges of the versions in tags."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable

from attrs import frozen

from .request import Blob, InRepository, Manifest, Reference, Referrers, Tag, Tags

_WORDS = re.compile(r"\*\*|\*|\?|[^*?]+")
_WILDCARDS = frozenset("*?")
_GLOBS = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
_MOST_STATES = 2000
_ANY_LETTER = "a letter that is in no glob"
_VERSION = re.compile(r"v?([0-9]{1,18}(?:\.[0-9]{1,18})*)(.*)")
_COMPARATOR = re.compile(r"(>=|<=|>|<|=)v?([0-9]{1,18}(?:\.[0-9]{1,18}){0,2})")
_OPERATORS: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "=": operator.eq
}  # fmt: skip
_PARTS = 3


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

    def matches_repository(self, target: InRepository) -> bool:
        """Return whether the rule's pattern matches the target's repository."""
        return self.repository.fullmatch(target.repository.name) is not None

    def covers(self, target: InRepository) -> bool:
        """Return whether the rule covers the target: the whole repository, its tag or its digest."""
        if not self.matches_repository(target) or (self.tag is None and self.digest is None):
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


def is_covered(glob: str, others: Iterable[str]) -> bool:
    """Return whether every name that a glob matches is matched by others, too.

    Follows all globs together, one letter at a time; if a name ends the glob and none of the others, it is
    not covered.  False, too, if many wildcards make that take more than ``_MOST_STATES`` steps.
    """
    known = list(others)
    if glob in known:
        return True
    tokens, covers = _tokens(glob), [_tokens(each) for each in known]
    letters = {letter for each in (tokens, *covers) for token in each for letter in token} - {"*", "?"}
    states = [
        (_follow(tokens, {0}), tuple((each, _follow(covers[each], {0})) for each in range(len(covers))))
    ]
    seen = set(states)
    while states:
        if len(seen) > _MOST_STATES:
            return False
        places, living = states.pop()
        if len(tokens) in places and not any(len(covers[each]) in its for each, its in living):
            return False
        following = {tokens[place] for place in places if place < len(tokens)}
        for letter in letters | {"/", _ANY_LETTER} if following & _GLOBS.keys() else following:
            stepped = ((each, _step(covers[each], its, letter)) for each, its in living)
            state = _step(tokens, places, letter), tuple((each, its) for each, its in stepped if its)
            if state[0] and state not in seen:
                seen.add(state)
                states.append(state)
    return True


def _tokens(glob: str) -> list[str]:
    """Split a glob into its wildcards and single letters."""
    words = _WORDS.findall(glob)
    return [token for word in words for token in ([word] if word in _GLOBS else word)]


def _follow(tokens: list[str], places: Iterable[int]) -> frozenset[int]:
    """Return the places with those behind wildcards that may match nothing."""
    reached = set(places)
    for place in sorted(reached):
        while place < len(tokens) and tokens[place] in ("*", "**"):
            place += 1
            reached.add(place)
    return frozenset(reached)


def _step(tokens: list[str], places: Iterable[int], letter: str) -> frozenset[int]:
    """Return the places in a glob after one more letter of a name."""
    after = set()
    for place in places:
        part = tokens[place] if place < len(tokens) else ""
        if part == letter or (part == "?" and letter != "/"):
            after.add(place + 1)
        elif part == "**" or (part == "*" and letter != "/"):
            after.add(place)
    return _follow(tokens, after)


def reference_of(target: InRepository) -> Reference | None:
    """Return the reference of the target; None for the list of tags."""
    match target:
        case Manifest():
            return target.reference
        case Blob() | Referrers():
            return target.digest
        case Tags():
            return None


@frozen
class Version:
    """A version: its numbers, and the text behind them, such as ``-rc.1`` or ``-alpine``."""

    numbers: tuple[int, ...]
    suffix: str = ""

    @classmethod
    def parse(cls, tag: str) -> Version | None:
        """Parse a tag such as ``v1.27.3-alpine``; None if it does not begin with a number."""
        match = _VERSION.fullmatch(tag)
        return cls(tuple(map(int, match[1].split("."))), match[2]) if match else None

    @property
    def order(self) -> tuple[tuple[int, ...], bool, tuple[str | int, ...]]:
        """A key to sort by: a version without a suffix is newer than the same one with a suffix."""
        words = re.split(r"([0-9]+)", self.suffix)
        return self.numbers, not self.suffix, tuple(int(w) if n % 2 else w for n, w in enumerate(words))


@frozen
class VersionRange:
    """Comparators that a semantic version meets, all of them; suffixes do not count.

    Source: Semantic Versioning 2.0.0, "Precedence"; the notation is that of npm, without its short forms.
    """

    comparators: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def parse(cls, text: str) -> VersionRange:
        """Parse a range such as ``>=1.25 <2``; missing numbers are zeros.

        :raises ValueError: when the text is no range.
        """
        matches = [_COMPARATOR.fullmatch(word) for word in text.split()]
        if not matches or not all(matches):
            raise ValueError('expected comparators such as ">=1.25 <2"')
        return cls(tuple((match[1], _pad(match[2])) for match in matches if match))

    def contains(self, version: Version) -> bool:
        """Return whether it is a complete version, of three numbers, that lies in the range."""
        return len(version.numbers) == _PARTS and all(
            _OPERATORS[name](version.numbers, bound) for name, bound in self.comparators
        )


def _pad(text: str) -> tuple[int, ...]:
    numbers = tuple(map(int, text.split(".")))
    return numbers + (0,) * (_PARTS - len(numbers))
