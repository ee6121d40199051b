"""Counts of cache lookups over the last hours, in slots of five minutes, in memory that processes share."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

PERIOD = 300
"""Seconds of a slot."""
_COUNT = 144
_SLOT = Struct("<QQQQ")
"""The slot's number, lookups, hits, and bytes held."""
SIZE = _COUNT * _SLOT.size
"""Bytes of memory for twelve hours."""


@frozen
class SeriesSlot:
    """Five minutes of the cache.

    :ivar begins: in seconds since the epoch.
    :ivar asked: lookups of blobs and manifests.
    :ivar hits: lookups for which no upstream had to send the content.
    :ivar held: bytes held at the last lookup; None if there was none.
    """

    begins: int
    asked: int = 0
    hits: int = 0
    held: int | None = None


class CacheSeries:
    """Counts lookups in the current slot, which replaces the oldest one.

    Processes that write at the same moment may lose one of two additions, and nothing else.

    :param memory: of ``SIZE`` bytes, zero at first.
    """

    def __init__(self, clock: IReactorTime, memory: memoryview) -> None:
        self._clock = clock
        self._memory = memory

    def asked(self, hit: bool, held: int = 0) -> None:
        """Count a lookup.

        :param held: bytes that the cache holds; 0 if unknown.
        """
        number = self._present()
        asked, hits, before = self._read(number)
        place = number % _COUNT * _SLOT.size
        _SLOT.pack_into(self._memory, place, number, asked + 1, hits + hit, held or before)

    def slots(self) -> Sequence[SeriesSlot]:
        """Return all slots up to now, the oldest first, empty ones too."""
        present = self._present()
        return [self._slot(number) for number in range(max(0, present - _COUNT + 1), present + 1)]

    def _slot(self, number: int) -> SeriesSlot:
        asked, hits, held = self._read(number)
        return SeriesSlot(number * PERIOD, asked, hits, held or None)

    def _present(self) -> int:
        return int(self._clock.seconds() // PERIOD)

    def _read(self, number: int) -> tuple[int, int, int]:
        which, asked, hits, held = _SLOT.unpack_from(self._memory, number % _COUNT * _SLOT.size)
        return (asked, hits, held) if which == number else (0, 0, 0)
