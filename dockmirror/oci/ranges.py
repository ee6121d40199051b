"""``Range`` as asked and ``ContentRange`` as resolved.

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
    """A part of a content, both ends inclusive; ``size`` is the whole's, None where it is not known."""

    first: int
    last: int
    size: int | None

    @classmethod
    def parse(cls, text: str) -> ContentRange | None:
        """None when the text names no part that can be."""
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
        """How many bytes the part has."""
        return self.last - self.first + 1


@frozen
class Span:
    """One range as asked: ``first`` to ``last``, ``first`` to the end, or the last ``suffix`` bytes."""

    first: int | None
    last: int | None = None
    suffix: int | None = None

    def __str__(self) -> str:
        if self.first is None:
            return f"-{self.suffix}"
        return f"{self.first}-{'' if self.last is None else self.last}"

    def resolve(self, size: int) -> ContentRange | None:
        """The part of a content of that size; None when no byte of it lies there."""
        if self.first is None:
            first, last = max(0, size - (self.suffix or 0)), size - 1
        else:
            first, last = self.first, size - 1 if self.last is None else min(self.last, size - 1)
        return ContentRange(first, last, size) if first <= last else None


@frozen
class Range:
    """All the ranges of one request."""

    spans: tuple[Span, ...]

    @classmethod
    def parse(cls, text: str) -> Range | None:
        """None when the text is no set of byte ranges: such a header is to be ignored."""
        unit, equals, listed = text.partition("=")
        if not equals or unit.strip().lower() != "bytes":
            return None
        spans = [_span(part.strip()) for part in listed.split(",") if part.strip()]
        found = tuple(span for span in spans if span)
        return cls(found) if found and len(found) == len(spans) else None

    @classmethod
    def starting_at(cls, first: int, last: int | None = None) -> Range:
        """From an offset to the end, or to ``last`` inclusive."""
        return cls((Span(first, last),))

    def __str__(self) -> str:
        return "bytes=" + ",".join(map(str, self.spans))

    @property
    def single(self) -> Span | None:
        """The range, where there is just one."""
        return self.spans[0] if len(self.spans) == 1 else None

    def resolve(self, size: int) -> tuple[ContentRange, ...]:
        """Return the parts of a content of that size, in the order asked, and no byte of it twice.

        Parts that overlap or touch are one (RFC 9110, 15.3.7.2): otherwise a short request could have the
        content sent many times over.

        :raises RangeInvalid: when no byte of the content lies in any of them.
        """
        parts = [part for part in (span.resolve(size) for span in self.spans) if part]
        if not parts:
            raise RangeInvalid(f"range not satisfiable: the content has {size} bytes", content_size=size)
        return _coalesced(parts)


def _coalesced(parts: Sequence[ContentRange]) -> tuple[ContentRange, ...]:
    """Join the parts that overlap or touch; each stands where the first of those that it is made of stood."""
    joined: list[tuple[int, ContentRange]] = []
    for place, part in sorted(enumerate(parts), key=lambda each: each[1].first):
        if joined and part.first <= joined[-1][1].last + 1:
            earlier, before = joined.pop()
            place, last = min(earlier, place), max(before.last, part.last)
            part = ContentRange(before.first, last, part.size)
        joined.append((place, part))
    return tuple(part for _, part in sorted(joined, key=lambda each: each[0]))


def format_unsatisfied(size: int) -> str:
    """``Content-Range`` of a 416."""
    return f"bytes */{size}"


def parse_unsatisfied(text: str) -> int | None:
    """The size that the ``Content-Range`` of a 416 tells."""
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
