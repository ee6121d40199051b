"""Durations as they are written in settings: seconds, or a number with a unit."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import PlainValidator

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*(ms|s|min|m|h|d|w)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DAY = 86_400.0
_LIMIT = 10**12


def format_duration(seconds: float) -> str:
    """Write a duration in the largest unit in which it is a whole number."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:g}{unit}"
    return f"{seconds:g}s"


def parse_duration(value: object) -> float:
    """Return a duration in seconds.

    :raises ValueError: when the value is neither a number of seconds nor a number with a unit.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LIMIT:
        return float(value)
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match:
        raise ValueError('expected a duration: seconds, or a number with a unit, such as "60s" or "10m"')
    return float(match[1]) * _UNITS[match[2] or "s"]


def _duration(at_most: float | None = None, above_zero: bool = True) -> Callable[[object], float]:
    """Return a validator of durations within limits."""

    def validate(value: object) -> float:
        seconds = parse_duration(value)
        if above_zero and not seconds:
            raise ValueError("expected a duration above 0")
        if at_most is not None and seconds > at_most:
            raise ValueError(f"expected a duration of at most {format_duration(at_most)}")
        return seconds

    return validate


def _parse_days(value: object) -> int:
    days = parse_duration(value) / _DAY if isinstance(value, str) and not value.isdecimal() else value
    try:
        number = float(str(days))
    except ValueError:
        number = 0
    if isinstance(value, bool) or not 1 <= number <= 10_000 or number % 1:
        raise ValueError('expected a number of whole days, from 1 to 10000, such as 90 or "90d"')
    return int(number)


Seconds = Annotated[float, PlainValidator(_duration(above_zero=False))]
Timeout = Annotated[float, PlainValidator(_duration(3600))]
ConnectTimeout = Annotated[float, PlainValidator(_duration(60))]
Window = Annotated[float, PlainValidator(_duration(86_400))]
Days = Annotated[int, PlainValidator(_parse_days)]
