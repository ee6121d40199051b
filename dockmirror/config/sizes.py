"""How much: numbers of bytes, and shares, as they are written in settings."""

from __future__ import annotations

import re
from typing import Annotated

from attrs import frozen
from pydantic import PlainSerializer, PlainValidator

_MOST = 10**17
"""Bytes; of more than that ``float`` and ``_AMOUNT`` do not tell again what was written."""
_AMOUNT = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,3})?)\s*(%|(?:[KMGT]i?)?B?)", re.IGNORECASE)
_UNITS = {"": 1} | {
    letter + kind: base**power
    for power, letter in enumerate("KMGT", 1)
    for kind, base in (("", 1000), ("I", 1024))
}


@frozen
class Amount:
    """A number of bytes, or a share of what a file system has."""

    bytes: int = 0
    share: float = 0.0

    def __bool__(self) -> bool:
        return self.bytes > 0 or self.share > 0

    def __str__(self) -> str:
        """As it may be written."""
        return f"{self.share * 100:g}%" if self.share else f"{self.bytes}B"

    def of(self, total: int) -> int:
        """In bytes, on a file system of so many."""
        return self.bytes + int(self.share * total)


def _amount(value: object) -> Amount:
    match = _AMOUNT.fullmatch(str(value).strip())
    if isinstance(value, bool) or not match:
        raise ValueError('expected a number of bytes, such as 500MB or 100GiB, or a share, such as "20%"')
    number, unit = float(match[1]), match[2].upper()
    if unit == "%":
        if number > 100:
            raise ValueError("expected a share of at most 100%")
        return Amount(share=number / 100)
    amount = Amount(bytes=int(number * _UNITS[unit.removesuffix("B")]))
    if amount.bytes >= _MOST:
        raise ValueError("expected less than 100,000 TB")
    return amount


def _bytes(value: object) -> int:
    amount = _amount(value)
    if amount.share or not amount.bytes:
        raise ValueError("expected a number of bytes, such as 500MB or 100GiB")
    return amount.bytes


def _share(value: object) -> float:
    try:
        share = _amount(value).share
    except ValueError:
        share = 0
    if not share:
        raise ValueError('expected a share above 0%, such as "50%"')
    return share


def _percent(share: float) -> str:
    return str(Amount(share=share))


Size = Annotated[Amount, PlainValidator(_amount), PlainSerializer(str)]
Bytes = Annotated[int, PlainValidator(_bytes)]
Share = Annotated[float, PlainValidator(_share), PlainSerializer(_percent)]
