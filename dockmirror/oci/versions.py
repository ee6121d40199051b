"""Versions that tags are named after, and ranges of semantic versions."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

from attrs import frozen

_VERSION = re.compile(r"v?([0-9]{1,18}(?:\.[0-9]{1,18})*)(.*)")
_COMPARATOR = re.compile(r"(>=|<=|>|<|=)v?([0-9]{1,18}(?:\.[0-9]{1,18}){0,2})")
_OPERATORS: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "=": operator.eq
}  # fmt: skip
_PARTS = 3


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
