"""Numbers of bytes and percentages, as they are written in settings."""

from __future__ import annotations

import re
from typing import Annotated

from attrs import frozen
from pydantic import PlainSerializer, PlainValidator

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB")
_LIMIT = 10**17
"""The limit in bytes, above which ``float`` and ``_AMOUNT`` do not reproduce what was written."""
_AMOUNT = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,3})?)\s*(%|(?:[KMGT]i?)?B?)", re.IGNORECASE)
_UNITS = {"": 1} | {
    letter + kind: base**power
    for power, letter in enumerate("KMGT", 1)
    for kind, base in (("", 1000), ("I", 1024))
}


def format_size(count: float) -> str:
    """Format a number of bytes in decimal units, as in the settings."""
    for unit in _DECIMAL[:-1]:
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {_DECIMAL[-1]}"


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


def _parse_amount(value: object) -> Amount:
    match = _AMOUNT.fullmatch(str(value).strip())
    if isinstance(value, bool) or not match:
        raise ValueError('expected a number of bytes, such as 500MB or 100GiB, or a share, such as "20%"')
    number, unit = float(match[1]), match[2].upper()
    if unit == "%":
        if number > 100:
            raise ValueError("expected a share of at most 100%")
        return Amount(share=number / 100)
    amount = Amount(bytes=int(number * _UNITS[unit.removesuffix("B")]))
    if amount.bytes >= _LIMIT:
        raise ValueError("expected less than 100,000 TB")
    return amount


def _parse_bytes(value: object) -> int:
    amount = _parse_amount(value)
    if amount.share or not amount.bytes:
        raise ValueError("expected a number of bytes, such as 500MB or 100GiB")
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
Bytes = Annotated[int, PlainValidator(_parse_bytes)]
Share = Annotated[float, PlainValidator(_parse_share), PlainSerializer(_format_share)]
