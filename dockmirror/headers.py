"""Header fields of responses, as text."""

from __future__ import annotations

from twisted.web.http_headers import Headers


def lines(headers: Headers, name: str) -> list[str]:
    """Return the values of a field, one per line; bytes outside ASCII are replaced."""
    return [value.decode("ascii", "replace") for value in headers.getRawHeaders(name.encode("ascii"), [])]


def first(headers: Headers, name: str) -> str | None:
    """Return the first value of a field, or None."""
    return next(iter(lines(headers, name)), None)
