"""``Range`` as requested, and ``ContentRange`` as resolved.

Source: RFC 9110, 14.1.2 (ranges), 14.2 (a malformed ``Range`` is ignored), 14.4 (``Content-Range``), 15.3.7
(several parts).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import frozen

from .errors import RangeInvalid

_SPEC = re.compile(r"(\d{1,18})-(\d{1,18})?|-(\d{1,18})", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII | re.IGNORECASE)
_UNSATISFIED = re.compile(r"bytes \*/(\d{1,18})", re.ASCII | re.IGNORECASE)


@frozen
class ContentRange:
    """A part of a content, both ends inclusive; ``size`` is that of the whole content, None if unknown."""

    first: int
    last: int
    size: int | None

    @classmethod
    def parse(cls, text: str) -> ContentRange | None:
        """Return the range, or None if it is malformed or impossible."""
        match = _CONTENT_RANGE.fullmatch(text.strip())
        if not match:
            return None
        first, last = int(match[1]), int(match[2])
        size = None if match[3] == "*" else int(match[3])
        if last < first or (size is not None and last >= size):
            return None
        return cls(first, last, size)

    def __str__(self) -> str:
        return f"bytes {self.first}-{self.last}/{'*' if self.size is None else self.size}"

    @property
    def length(self) -> int:
        """The number of bytes of the part."""
        return self.last - self.first + 1


@frozen
class Span:
    """One requested range: ``first`` to ``last``, ``first`` to the end, or the last ``suffix`` bytes."""

    first: int | None
    last: int | None = None
    suffix: int | None = None

    def __str__(self) -> str:
        if self.first is None:
            return f"-{self.suffix}"
        return f"{self.first}-{'' if self.last is None else self.last}"

    def resolve(self, size: int) -> ContentRange | None:
        """Return the part of a content of that size, or None if no byte lies in the range."""
        if self.first is None:
            first, last = max(0, size - (self.suffix or 0)), size - 1
        else:
            first, last = self.first, size - 1 if self.last is None else min(self.last, size - 1)
        return ContentRange(first, last, size) if first <= last else None


@frozen
class Range:
    """All ranges of one request."""

    spans: tuple[Span, ...]

    @classmethod
    def parse(cls, text: str) -> Range | None:
        """Return the ranges, or None for a header that is to be ignored."""
        unit, equals, specs = text.partition("=")
        if not equals or unit.strip().lower() != "bytes":
            return None
        spans = [_span(part.strip()) for part in specs.split(",") if part.strip()]
        valid = tuple(span for span in spans if span)
        return cls(valid) if valid and len(valid) == len(spans) else None

    @classmethod
    def starting_at(cls, first: int, last: int | None = None) -> Range:
        """Return the range from an offset to the end, or to ``last`` inclusive."""
        return cls((Span(first, last),))

    def __str__(self) -> str:
        return "bytes=" + ",".join(map(str, self.spans))

    @property
    def single(self) -> Span | None:
        """The range, if there is exactly one."""
        return self.spans[0] if len(self.spans) == 1 else None

    def resolve(self, size: int) -> tuple[ContentRange, ...]:
        """Return the parts of a content of that size, in the requested order, and no byte of it twice.

        Parts that overlap or touch are joined (RFC 9110, 15.3.7.2): otherwise a short request could have the
        content sent many times over.

        :raises RangeInvalid: when no byte of the content lies in any of them.
        """
        parts = [part for part in (span.resolve(size) for span in self.spans) if part]
        if not parts:
            raise RangeInvalid(f"range not satisfiable: the content has {size} bytes", content_size=size)
        return _coalesced(parts)


def _coalesced(parts: Sequence[ContentRange]) -> tuple[ContentRange, ...]:
    """Join parts that overlap or touch; each takes the place of the first of its parts."""
    joined: list[tuple[int, ContentRange]] = []
    for position, part in sorted(enumerate(parts), key=lambda each: each[1].first):
        if joined and part.first <= joined[-1][1].last + 1:
            first_position, previous = joined.pop()
            position, last = min(first_position, position), max(previous.last, part.last)
            part = ContentRange(previous.first, last, part.size)
        joined.append((position, part))
    return tuple(part for _, part in sorted(joined, key=lambda each: each[0]))


def whole_range(size: int) -> tuple[ContentRange, ...]:
    """Return the parts that make up a complete content: one, or none if it is empty."""
    return (ContentRange(0, size - 1, size),) if size else ()


def format_unsatisfied(size: int) -> str:
    """Return the ``Content-Range`` of a 416."""
    return f"bytes */{size}"


def parse_unsatisfied(text: str) -> int | None:
    """Return the size that the ``Content-Range`` of a 416 states."""
    match = _UNSATISFIED.fullmatch(text.strip())
    return int(match[1]) if match else None


def _span(text: str) -> Span | None:
    match = _SPEC.fullmatch(text)
    if not match:
        return None
    if match[3] is not None:
        return Span(None, suffix=int(match[3]))
    first, last = int(match[1]), None if match[2] is None else int(match[2])
    return Span(first, last) if last is None or first <= last else None
