"""What clients have had, in memory that several processes may share."""

from __future__ import annotations

import hashlib
from struct import Struct

from attrs import frozen

from ..system.networks import Network

_SLOT = Struct("<QdQQ")
"""Whose it is, when its window began, requests, bytes."""
_TRIED = 8
SIZE = 65_536 * _SLOT.size
"""Bytes of memory for so many networks at a time; of more, those are forgotten whose window began first."""


@frozen
class Spent:
    """What a network has had since its window began, in seconds of the clock."""

    began: float
    requests: int
    bytes: int


class Ledger:
    """A table of networks, each in one of a few slots that its address picks.

    Processes that write at the same moment may lose one of two additions, and nothing else.

    :param memory: of ``SIZE`` bytes or fewer, zero at first.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._slots = len(memory) // _SLOT.size

    def spent(self, network: Network, now: float, window: float) -> Spent:
        """What it has had; nothing where its window is over, which begins anew then."""
        return self._find(_key(network), now, window)[1]

    def add(self, network: Network, now: float, window: float, requests: int = 0, bytes: int = 0) -> None:
        """It has had so much more."""
        key = _key(network)
        place, spent = self._find(key, now, window)
        _SLOT.pack_into(self._memory, place, key, spent.began, spent.requests + requests, spent.bytes + bytes)

    def _find(self, key: int, now: float, window: float) -> tuple[int, Spent]:
        """The network's own slot, or else the one of these that is missed least."""
        oldest, its_time = 0, float("inf")
        for step in range(_TRIED):
            place = (key + step) % self._slots * _SLOT.size
            whose, began, requests, sent = _SLOT.unpack_from(self._memory, place)
            if whose == key:
                lasts = began <= now < began + window
                return place, Spent(began, requests, sent) if lasts else Spent(now, 0, 0)
            if not whose:
                began = -1.0
            if began < its_time:
                oldest, its_time = place, began
        return oldest, Spent(now, 0, 0)


def _key(network: Network) -> int:
    digest = hashlib.blake2b(network.network_address.packed, digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1
