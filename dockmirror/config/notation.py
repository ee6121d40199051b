"""Sizes, durations and endpoints as people write them in settings."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from attrs import frozen
from pydantic import PlainSerializer, PlainValidator

_DECIMAL_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_SIZE_LIMIT = 10**17
"""The limit in bytes, above which ``float`` and ``_AMOUNT`` do not reproduce what was written."""
_AMOUNT = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,3})?)\s*(%|(?:[KMGT]i?)?B?)", re.IGNORECASE)
_SIZE_UNITS = {"": 1} | {
    letter + kind: base**power
    for power, letter in enumerate("KMGT", 1)
    for kind, base in (("", 1000), ("I", 1024))
}


def format_size(count: float) -> str:
    """Format a number of bytes in decimal units, as in the settings."""
    for unit in _DECIMAL_UNITS[:-1]:
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {_DECIMAL_UNITS[-1]}"


@frozen
class Amount:
    """A number of bytes, or a share of a file system's size."""

    bytes: int = 0
    share: float = 0.0

    def __bool__(self) -> bool:
        return self.bytes > 0 or self.share > 0

    def __str__(self) -> str:
        return f"{self.share * 100:g}%" if self.share else f"{self.bytes}B"

    def of(self, total: int) -> int:
        """Return the number of bytes on a file system of this size."""
        return self.bytes + int(self.share * total)


_BYTES = "expected a number of bytes, such as 500MB or 100GiB"


def _parse_amount(value: object, *, expected: str = f'{_BYTES}, or a share, such as "20%"') -> Amount:
    match = _AMOUNT.fullmatch(str(value).strip())
    if isinstance(value, bool) or not match:
        raise ValueError(expected)
    number, unit = float(match[1]), match[2].upper()
    if unit == "%":
        if number > 100:
            raise ValueError("expected a share of at most 100%")
        return Amount(share=number / 100)
    amount = Amount(bytes=int(number * _SIZE_UNITS[unit.removesuffix("B")]))
    if amount.bytes >= _SIZE_LIMIT:
        raise ValueError("expected less than 100,000 TB")
    return amount


def parse_bytes(value: object) -> int:
    amount = _parse_amount(value, expected=_BYTES)
    if amount.share or not amount.bytes:
        raise ValueError(_BYTES)
    return amount.bytes


def _parse_share(value: object) -> float:
    try:
        share = _parse_amount(value).share
    except ValueError:
        share = 0
    if not share:
        raise ValueError('expected a share above 0%, such as "50%"')
    return share


def _format_share(share: float) -> str:
    return str(Amount(share=share))


Size = Annotated[Amount, PlainValidator(_parse_amount), PlainSerializer(str)]
Bytes = Annotated[int, PlainValidator(parse_bytes)]
Share = Annotated[float, PlainValidator(_parse_share), PlainSerializer(_format_share)]


AUTOMATIC = 0
"""Stands for ``"auto"`` in the place of a number of segments."""
MAX_SEGMENTS = 16
"""The most connections over which one blob is fetched."""


def _parse_segments(value: object) -> int:
    if value == "auto":
        return AUTOMATIC
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_SEGMENTS:
        return value
    raise ValueError(f'expected "auto" or a number from 1 to {MAX_SEGMENTS}')


Segments = Annotated[
    int,
    PlainValidator(_parse_segments),
    PlainSerializer(lambda number: number or "auto", return_type=int | str),
]


_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*(ms|s|min|m|h|d|w)?")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DAY = 86_400.0
_DURATION_LIMIT = 10**12


def format_duration(seconds: float) -> str:
    """Write a duration in the largest unit in which it is a whole number."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _DURATION_UNITS[unit] == 0:
            return f"{seconds / _DURATION_UNITS[unit]:g}{unit}"
    return f"{seconds:g}s"


def parse_duration(value: object) -> float:
    """Return a duration in seconds.

    :raises ValueError: when the value is neither a number of seconds nor a number with a unit.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _DURATION_LIMIT:
        return float(value)
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match:
        raise ValueError('expected a duration: seconds, or a number with a unit, such as "60s" or "10m"')
    return float(match[1]) * _DURATION_UNITS[match[2] or "s"]


def _duration(
    at_most: float | None = None, above_zero: bool = True, at_least: float = 0.0
) -> Callable[[object], float]:
    """Return a validator of durations within limits."""

    def validate(value: object) -> float:
        seconds = parse_duration(value)
        if above_zero and not seconds:
            raise ValueError("expected a duration above 0")
        if at_most is not None and seconds > at_most:
            raise ValueError(f"expected a duration of at most {format_duration(at_most)}")
        if seconds < at_least:
            raise ValueError(f"expected a duration of at least {format_duration(at_least)}")
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
GateTimeout = Annotated[float, PlainValidator(_duration(3))]
Window = Annotated[float, PlainValidator(_duration(86_400))]
SyncPeriod = Annotated[float, PlainValidator(_duration(30 * _DAY, at_least=60))]
Days = Annotated[int, PlainValidator(_parse_days)]


_HTTPS = "https:"
_SHORT = re.compile(
    r"(?:(?P<host>|\*|localhost|[0-9]+(?:\.[0-9]+){3}|\[[0-9A-Fa-f:.]+\]):)?(?P<port>[0-9]{1,5})"
    r"(?P<options>(?::[A-Za-z]+=(?:\\.|[^\\:])*)*)"
)
_ADDRESSES = {"localhost": "127.0.0.1"}
_MAX_PORT = 65535


def is_short_endpoint(text: str) -> bool:
    """Return whether a text is a short form, alone or after ``https:``."""
    match = _SHORT.fullmatch(text.removeprefix(_HTTPS))
    return match is not None and int(match["port"]) <= _MAX_PORT


def expand_endpoint(text: str, all_addresses: str) -> str:
    """Return the endpoint string that a short form stands for; any other text is returned unchanged.

    :param all_addresses: the interface of a form without an address.
    """
    match = _SHORT.fullmatch(text.removeprefix(_HTTPS))
    if not match:
        return text
    host = (match["host"] or "").strip("[]")
    interface = all_addresses if host in ("", "*") else _ADDRESSES.get(host, host)
    if not interface or ":interface=" in match["options"]:
        address = ""
    else:
        address = ":interface=" + interface.replace(":", "\\:")
    scheme = _HTTPS if text.startswith(_HTTPS) else ""
    return f"{scheme}tcp:{match['port']}{address}{match['options']}"
