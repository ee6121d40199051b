"""Header fields: ranges, entity tags, the outcome of a cache lookup, ``Link`` and ``CDN-Loop``.

Sources: RFC 9110, 8.8.3 and 13.1.2 (entity tags and their weak comparison), 14.1.2 (ranges), 14.2 (a
malformed ``Range`` is ignored), 14.4 (``Content-Range``), 15.3.7 (several parts); RFC 9111, 5.1 (``Age``) and
5.5 (``Warning`` 110, here 299 because clients show that one); RFC 9211 (``Cache-Status``); RFC 8246
(``immutable``); RFC 5861 (``stale-while-revalidate``); RFC 8288; OCI distribution specification, "Listing
Tags"; RFC 8586.  The link of an upstream may be relative or absolute and names the path of the upstream; the
mirror only needs its query.

``CDN-Loop`` names the mirrors that a request has passed.  ``Via`` serves less: reverse proxies write it anew,
and some servers respond differently to it.  A mirror sends its random identifier only to its upstreams and to
the hosts that these name; clients never see it, and so cannot have the requests of others refused.  The
members of other software are not passed on, as a mirror's request is its own: a CDN in front of both the
mirror and a registry would take it for a loop.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from urllib.parse import parse_qsl, urlencode, urlsplit

from attrs import frozen

from .digest import Digest
from .errors import RangeInvalid

_RANGE_SPEC = re.compile(r"(\d{1,18})-(\d{1,18})?|-(\d{1,18})", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII | re.IGNORECASE)
_UNSATISFIED = re.compile(r"bytes \*/(\d{1,18})", re.ASCII | re.IGNORECASE)
_CACHE = "dockmirror"
_LONGEST_MEMBER = 200
_LONGEST_STATUS = 2000
"""Characters of a ``Cache-Status`` that is read: the time for a malformed one grows with their square."""
_MEMBER = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*")+')
_AGE = re.compile(r"[0-9]{1,10}")
CDN_LOOP = "CDN-Loop"
_MOST_HOPS = 16
"""Mirrors of a chain that are passed on, the last ones: a loop through as many is still recognized."""
_HOP = re.compile(r"dockmirror-([0-9a-f]{32})(?:[ \t]*;[ \t]*pull=([0-9]{1,16}))?([ \t]*;[ \t]*peer)?")
_TAG = r'(?:W/)?"[!#-~]*"'
_TAGS = re.compile(rf"\*|{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")
_UNQUOTED = re.compile(r"[!#-+\--~]+")
_LINK = re.compile(r"<([^<>]*)>([^<]*)")
_NEXT = re.compile(r';\s*rel\s*=\s*(?:"next"|next)\s*(?:[;,]|$)', re.IGNORECASE)


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

    def parts(self, size: int) -> tuple[ContentRange, ...]:
        """Return the parts of a content of that size, in the requested order, and no byte of it twice.

        Parts that overlap or touch are joined (RFC 9110, 15.3.7.2): otherwise a short request could have the
        content sent many times over.  There are none if no byte of the content lies in any of the ranges.
        """
        return _coalesced([part for part in (span.resolve(size) for span in self.spans) if part])

    def resolve(self, size: int) -> tuple[ContentRange, ...]:
        """Return the parts of a content of that size.

        :raises RangeInvalid: when there are none.
        """
        parts = self.parts(size)
        if not parts:
            raise RangeInvalid(f"range not satisfiable: the content has {size} bytes", content_size=size)
        return parts


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
    match = _RANGE_SPEC.fullmatch(text)
    if not match:
        return None
    if match[3] is not None:
        return Span(None, suffix=int(match[3]))
    first, last = int(match[1]), None if match[2] is None else int(match[2])
    return Span(first, last) if last is None or first <= last else None


class CacheResult(Enum):
    """The outcome of a cache lookup; the value is its list of RFC 9211 parameters.

    :ivar is_hit: True if the cache answered without asking the upstream.
    """

    HIT = "hit"
    STALE_WHILE_REVALIDATE = "hit; detail=stale-while-revalidate"
    REDIRECTED = "hit; detail=redirect"
    MISS = "fwd=miss"
    STORED = "fwd=miss; stored"
    JOINED = "fwd=miss; collapsed"
    CONFIRMED = "fwd=stale; detail=confirmed"
    STALE = "fwd=stale; detail=upstream"
    BYPASS = "fwd=bypass"

    def __init__(self, parameters: str) -> None:
        self.is_hit = parameters.startswith("hit")


@frozen
class CacheStatus:
    """The part that the cache had in an answer.

    :ivar age: seconds since the upstream confirmed a tag or a list.
    :ivar stale_reason: why the upstream could not confirm it, where it is served stale.
    :ivar immutable: True if shared caches may keep the answer for good: it is public and named by its digest.
    """

    result: CacheResult = CacheResult.HIT
    age: float | None = None
    stale_reason: str = ""
    immutable: bool = False

    @property
    def unconfirmed(self) -> str:
        """Why the upstream has not confirmed the answer; empty if it has."""
        if self.result is CacheResult.STALE:
            return self.stale_reason or "the upstream gave no answer"
        return "the upstream was not asked" if self.result.is_hit else ""

    @classmethod
    def parse(cls, lines: Iterable[str]) -> CacheStatus | None:
        """Read the lines of ``Cache-Status``; return None if the nearest cache is no mirror."""
        text = ",".join(lines)
        members = _MEMBER.findall(text) if len(text) <= _LONGEST_STATUS else []
        cache, _, parameters = (members[-1] if members else "").partition(";")
        try:
            return cls(CacheResult(parameters.strip())) if cache.strip() == _CACHE else None
        except ValueError:
            return None

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the header fields that say this to clients and to caches in between."""
        fields = [("Cache-Status", f"{_CACHE}; {self.result.value}"), ("Vary", "Accept, Authorization")]
        if self.age is not None:
            fields.append(("Age", str(max(0, int(self.age)))))
        if self.result is CacheResult.STALE:
            reason = _quotable(self.stale_reason) or "the upstream gave no reason"
            fields.append(("Warning", f'299 - "served stale: {reason}"'))
        if self.immutable:
            fields.append(("Cache-Control", "public, max-age=31536000, immutable"))
        return tuple(fields)


def parse_age(field: str | None) -> float | None:
    """Return the seconds of an ``Age`` field, or None if it is missing or invalid."""
    return float(field) if field is not None and _AGE.fullmatch(field.strip()) else None


def _quotable(text: str) -> str:
    """Return an error's text, which may be the upstream's, as it may stand in a quoted string."""
    plain = " ".join(text.encode("ascii", "replace").decode().replace('"', "'").replace("\\", "/").split())
    return "".join(letter for letter in plain if letter.isprintable())[:_LONGEST_MEMBER]


def format_etag(digest: Digest | str) -> str:
    """Return the entity tag for a digest."""
    return f'"{digest}"'


def parse_if_none_match(text: str | None) -> str | None:
    """Return an ``If-None-Match`` that may be passed on, or None for one that is to be ignored.

    A single tag without quotes, as some clients send a digest, is quoted.
    """
    if text is None or _TAGS.fullmatch(text):
        return text
    return f'"{text}"' if _UNQUOTED.fullmatch(text) else None


def etag_matches(if_none_match: str | None, digest: Digest | None) -> bool:
    """Return whether a client that sent this ``If-None-Match`` already has the content."""
    if if_none_match is None or digest is None:
        return False
    tags = [tag.strip() for tag in if_none_match.split(",")]
    return "*" in tags or str(digest) in (tag.removeprefix("W/").strip('"') for tag in tags)


def demands_revalidation(lines: Iterable[str]) -> bool:
    """Return whether a request's ``Cache-Control`` lines say ``no-cache`` (RFC 9111, 5.2.1.4)."""
    directives = (directive.partition("=")[0].strip() for line in lines for directive in line.split(","))
    return any(directive.lower() == "no-cache" for directive in directives)


def parse_next_page(lines: Iterable[str]) -> tuple[tuple[str, str], ...] | None:
    """Return the query of the first ``rel="next"`` link, or None if there is no next page."""
    for target, parameters in (match for line in lines for match in _LINK.findall(line)):
        if _NEXT.search(parameters):
            try:
                return tuple(parse_qsl(urlsplit(target).query, keep_blank_values=True))
            except ValueError:
                return None
    return None


def format_next_page(path: str, query: tuple[tuple[str, str], ...]) -> str:
    """Return a ``Link`` to the next page of the list at that path."""
    return f'<{path}?{urlencode(query)}>; rel="next"'


@frozen
class Hop:
    """A mirror that has sent a request to its upstream, or to a peer.

    :ivar mirror: its identifier, 32 hexadecimal digits.
    :ivar pull: the number of the pull there; empty if the request belongs to none.
    :ivar is_peer: True if it has asked another mirror of its fleet.
    """

    mirror: str
    pull: str = ""
    is_peer: bool = False

    def __str__(self) -> str:
        pull = f"; pull={self.pull}" if self.pull else ""
        return f"dockmirror-{self.mirror}{pull}{'; peer' if self.is_peer else ''}"


def parse_hops(lines: Iterable[str]) -> tuple[Hop, ...]:
    """Return the mirrors that the lines of ``CDN-Loop`` name, in the order in which they sent the request."""
    members = (member.strip(" \t") for line in lines for member in line.split(","))
    matches = (_HOP.fullmatch(member) for member in members)
    return tuple(Hop(match[1], match[2] or "", bool(match[3])) for match in matches if match)[-_MOST_HOPS:]


def format_hops(hops: Iterable[Hop]) -> str:
    """Return the value of ``CDN-Loop``."""
    return ", ".join(map(str, hops))
