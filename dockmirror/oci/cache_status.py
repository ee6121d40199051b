"""The outcome of a cache lookup, as response header fields, in a chain of caches.

Sources: RFC 9211 (``Cache-Status``), RFC 9111, 5.1 (``Age``) and 5.5 (``Warning`` 110, here 299 because
clients show that one), RFC 8246 (``immutable``), RFC 5861 (``stale-while-revalidate``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum

from attrs import frozen

_CACHE = "dockmirror"
_LONGEST = 200
_MEMBER = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*")+')
_AGE = re.compile(r"[0-9]{1,10}")


class CacheResult(Enum):
    """The outcome of a cache lookup; the value is its list of RFC 9211 parameters."""

    HIT = "hit"
    STALE_WHILE_REVALIDATE = "hit; detail=stale-while-revalidate"
    REDIRECTED = "hit; detail=redirect"
    MISS = "fwd=miss"
    STORED = "fwd=miss; stored"
    JOINED = "fwd=miss; collapsed"
    CONFIRMED = "fwd=stale; detail=confirmed"
    STALE = "fwd=stale; detail=upstream"
    BYPASS = "fwd=bypass"

    @property
    def is_hit(self) -> bool:
        """Return whether the cache answered without asking the upstream."""
        return self in (CacheResult.HIT, CacheResult.STALE_WHILE_REVALIDATE, CacheResult.REDIRECTED)


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
        members = _MEMBER.findall(",".join(lines))
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
    return "".join(letter for letter in plain if letter.isprintable())[:_LONGEST]
