"""Measurements of several peers in turn."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


def in_turn(rounds: int, measures: Mapping[str, Callable[[int], T]]) -> dict[str, list[T]]:
    """Return each peer's measurements by name; every second round measures in reverse order."""
    got: dict[str, list[T]] = {name: [] for name in measures}
    for number in range(rounds + 1):
        names = list(measures)
        for name in reversed(names) if number % 2 else names:
            os.sync()  # what one has written must not weigh on the next
            measured = measures[name](number)
            if number:
                got[name].append(measured)
    return got
