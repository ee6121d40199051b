"""Header fields of requests and responses as text."""

from __future__ import annotations

from twisted.web.http_headers import Headers


def lines(headers: Headers, name: str) -> list[str]:
    """The values of a field, a line each; bytes that are no ASCII, which none may hold here, are replaced."""
    return [value.decode("ascii", "replace") for value in headers.getRawHeaders(name.encode("ascii"), [])]


def first(headers: Headers, name: str) -> str | None:
    """The first value of a field."""
    return next(iter(lines(headers, name)), None)
