"""The format of times in logs, on pages and in the output of commands: RFC 3339, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def format_timestamp(seconds: float) -> str:
    """Write a time since 1970 with milliseconds, such as 2026-01-31T09:30:00.250+00:00."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
