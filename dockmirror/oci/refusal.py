"""A refusal of an upstream, as the error that it means.

Its own words are kept where they are the specification's, and wrapped where they are not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from attrs import field, frozen

from .challenge import Challenge
from .errors import (
    ROWS,
    Denied,
    ErrorEntry,
    NameUnknown,
    RangeInvalid,
    RegistryError,
    SizeInvalid,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unsupported,
)

_BY_CODE: Mapping[str, type[RegistryError]] = {row.code: row for row in ROWS}
_BY_STATUS: Mapping[int, type[RegistryError]] = {
    401: Unauthorized,
    403: Denied,
    405: Unsupported,
    413: SizeInvalid,
    416: RangeInvalid,
    429: TooManyRequests,
}


@frozen
class UpstreamRefusal:
    """What an upstream said instead of giving what was asked for."""

    status: int
    body: bytes
    challenges: tuple[Challenge, ...] = ()
    retry_after: str | None = None
    unknown: type[RegistryError] = field(default=NameUnknown)
    """The row for a 404 without a code: what was asked for is what is not there."""
    from_other_host: bool = False

    def error(self) -> RegistryError:
        """The error to raise: the upstream's own entries, or its reason wrapped; its status always kept."""
        entries = _entries(self.body)
        row = self._row()
        if entries and self.status not in (401, 429):  # of these the status says more than a code
            row = _BY_CODE.get(entries[0].code, RegistryError)
        return row(
            f"the upstream answered {self.status}",
            detail=_reason(self.body),
            status=self.status,
            entries=entries,
            challenges=self.challenges,
            retry_after=self.retry_after,
            upstream_status=self.status,
            elsewhere=self.from_other_host,
        )

    def _row(self) -> type[RegistryError]:
        if self.status == 404:
            return self.unknown
        return _BY_STATUS.get(self.status, Unavailable if self.status >= 500 else RegistryError)


def _entries(body: bytes) -> tuple[ErrorEntry, ...]:
    try:
        listed = json.loads(body)["errors"]
        return tuple(_entry(e) for e in listed)
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()


def _entry(value: Mapping[str, object]) -> ErrorEntry:
    code = value["code"]
    if not isinstance(code, str):
        raise TypeError("a code is text")
    return ErrorEntry(code, str(value.get("message") or ""), value.get("detail"))


def _reason(body: bytes) -> str | None:
    """The beginning of a body that is not the specification's, as text for a human."""
    text = " ".join(body[:512].decode("utf-8", "replace").split())
    return text or None
