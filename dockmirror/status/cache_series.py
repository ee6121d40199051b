"""Counts of cache lookups by time, and of pulls by repository, in memory that processes share."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ..system.shared_table import SharedTable, hash_key

PERIOD = 300
"""Seconds of a slot."""
_COUNT = 144
_SLOT = Struct("<QQQQ")
"""The slot's number, lookups, hits, and bytes held."""
SERIES_SIZE = _COUNT * _SLOT.size
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

    :param memory: of ``SERIES_SIZE`` bytes, zero at first.
    """

    def __init__(self, clock: IReactorTime, memory: memoryview) -> None:
        self._clock = clock
        self._memory = memory

    def record_lookup(self, hit: bool, held: int = 0) -> None:
        """Count a lookup.

        :param held: bytes that the cache holds; 0 if unknown.
        """
        number = self._current_number()
        asked, hits, before = self._read(number)
        place = number % _COUNT * _SLOT.size
        _SLOT.pack_into(self._memory, place, number, asked + 1, hits + hit, held or before)

    def slots(self) -> Sequence[SeriesSlot]:
        """Return all slots up to now, the oldest first, empty ones too."""
        present = self._current_number()
        return [self._slot(number) for number in range(max(0, present - _COUNT + 1), present + 1)]

    def _slot(self, number: int) -> SeriesSlot:
        asked, hits, held = self._read(number)
        return SeriesSlot(number * PERIOD, asked, hits, held or None)

    def _current_number(self) -> int:
        return int(self._clock.seconds() // PERIOD)

    def _read(self, number: int) -> tuple[int, int, int]:
        which, asked, hits, held = _SLOT.unpack_from(self._memory, number % _COUNT * _SLOT.size)
        return (asked, hits, held) if which == number else (0, 0, 0)


_LONGEST = 300
_RECORD = Struct(f"<QQQH{_LONGEST}s")
"""The key, manifests and bytes that were sent, and the length and bytes of the name."""
PULL_COUNTS_SIZE = 4096 * _RECORD.size
"""Bytes of memory for 4096 repositories."""


@frozen
class RepositoryPulls:
    """Counts of a repository, whose name begins with its registry's: manifests and bytes sent to clients.

    :ivar manifests: one or two per pull: an image for several platforms is pulled by its index.
    """

    repository: str
    manifests: int
    bytes: int


class PullCounts:
    """A table of repositories, which drops those that are pulled least when it is full.

    :param memory: at most ``PULL_COUNTS_SIZE`` bytes, zero at first.
    """

    def __init__(self, memory: memoryview) -> None:
        self._slots = SharedTable(memory, _RECORD, lambda record: record[1:3])

    def record_pull(self, repository: str, manifests: int = 0, bytes: int = 0) -> None:
        """Add what a client was sent."""
        name = repository.encode()[:_LONGEST]
        key = hash_key(name)
        place, record = self._slots.find(key)
        before, sent = record[1:3] if record else (0, 0)
        self._slots.put(place, key, before + manifests, sent + bytes, len(name), name)

    def list_most(self, count: int) -> Sequence[RepositoryPulls]:
        """Return the repositories that are pulled most, in that order."""
        pulled = (
            RepositoryPulls(name[:length].decode("utf-8", "replace"), manifests, sent)
            for _, manifests, sent, length, name in self._slots.records()
        )
        return sorted(pulled, key=lambda each: (-each.manifests, -each.bytes, each.repository))[:count]
