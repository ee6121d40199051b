"""What clients have had, in memory that several processes may share."""

from __future__ import annotations

from struct import Struct

from attrs import frozen

from ..system.networks import Network
from ..system.shared_table import Record, SharedTable, key_of

_SLOT = Struct("<QdQQ")
"""Whose it is, when its window began, requests, bytes."""
SIZE = 65_536 * _SLOT.size
"""Bytes of memory for so many networks at a time."""


@frozen
class WindowCount:
    """What a network has had since its window began, in seconds of the clock."""

    began: float
    requests: int
    bytes: int


class RateCounters:
    """A table of networks; where there are too many those are forgotten whose window began first.

    :param memory: of ``SIZE`` bytes or fewer, zero at first.
    """

    def __init__(self, memory: memoryview) -> None:
        self._slots = SharedTable(memory, _SLOT, lambda record: record[1])

    def spent(self, network: Network, now: float, window: float) -> WindowCount:
        """What it has had; nothing where its window is over, which begins anew then."""
        return _lasting(self._slots.find(_key(network))[1], now, window)

    def add(self, network: Network, now: float, window: float, requests: int = 0, bytes: int = 0) -> None:
        """It has had so much more."""
        key = _key(network)
        place, record = self._slots.find(key)
        spent = _lasting(record, now, window)
        self._slots.put(place, key, spent.began, spent.requests + requests, spent.bytes + bytes)


def _lasting(record: Record | None, now: float, window: float) -> WindowCount:
    if record is not None and record[1] <= now < record[1] + window:
        return WindowCount(*record[1:])
    return WindowCount(now, 0, 0)


def _key(network: Network) -> int:
    return key_of(network.network_address.packed)
