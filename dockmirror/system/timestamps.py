"""The format of times in logs, on pages and in the output of commands: RFC 3339, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TextIO

from twisted.logger import FileLogObserver, formatEventAsClassicLogText


def format_timestamp(seconds: float) -> str:
    """Write a time since 1970 with milliseconds, such as 2026-01-31T09:30:00.250+00:00."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def make_log_observer(file: TextIO) -> FileLogObserver:
    """Return an observer that writes log events as text, with times as in the access log."""
    return FileLogObserver(file, partial(formatEventAsClassicLogText, formatTime=_format_event_time))


def _format_event_time(seconds: float | None) -> str:
    return "-" if seconds is None else format_timestamp(seconds)
