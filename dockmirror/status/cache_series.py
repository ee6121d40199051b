"""The last hours, in slots of some minutes, in memory that several processes may share."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

PERIOD = 300
"""Seconds of a slot."""
_COUNT = 144
_SLOT = Struct("<QQQQ")
"""Which it is, how many requests the cache was asked, how many of them it answered, bytes held."""
SIZE = _COUNT * _SLOT.size
"""Bytes of memory for twelve hours."""


@frozen
class SeriesSlot:
    """Some minutes of the cache.

    :ivar begins: in seconds since the epoch.
    :ivar asked: requests for blobs and manifests.
    :ivar hits: those of them for which no upstream had to send it.
    :ivar held: bytes held, as last seen in that time; None where nobody has looked.
    """

    begins: int
    asked: int = 0
    hits: int = 0
    held: int | None = None


class CacheSeries:
    """Counts by the slot of the present; those of long ago give their place to it.

    Processes that write at the same moment may lose one of two additions, and nothing else.

    :param memory: of ``SIZE`` bytes, zero at first.
    """

    def __init__(self, clock: IReactorTime, memory: memoryview) -> None:
        self._clock = clock
        self._memory = memory

    def asked(self, hit: bool, held: int = 0) -> None:
        """The cache was asked for something.

        :param held: how many bytes it holds; 0 where that is not known.
        """
        number = self._present()
        asked, hits, before = self._read(number)
        place = number % _COUNT * _SLOT.size
        _SLOT.pack_into(self._memory, place, number, asked + 1, hits + hit, held or before)

    def slots(self) -> Sequence[SeriesSlot]:
        """All of them up to the present, the oldest first, also those in which nothing was asked."""
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
