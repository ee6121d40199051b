"""Counts of pulls by repository, in memory that processes share."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from attrs import frozen

from ..system.shared_table import SharedTable, hash_key

_LONGEST = 300
_RECORD = Struct(f"<QQQH{_LONGEST}s")
"""The key, manifests and bytes that were sent, and the length and bytes of the name."""
SIZE = 4096 * _RECORD.size
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

    :param memory: at most ``SIZE`` bytes, zero at first.
    """

    def __init__(self, memory: memoryview) -> None:
        self._slots = SharedTable(memory, _RECORD, lambda record: record[1:3])

    def sent(self, repository: str, manifests: int = 0, bytes: int = 0) -> None:
        """Add what a client was sent."""
        name = repository.encode()[:_LONGEST]
        key = hash_key(name)
        place, record = self._slots.find(key)
        before, sent = record[1:3] if record else (0, 0)
        self._slots.put(place, key, before + manifests, sent + bytes, len(name), name)

    def most(self, count: int) -> Sequence[RepositoryPulls]:
        """Return the repositories that are pulled most, in that order."""
        pulled = (
            RepositoryPulls(name[:length].decode("utf-8", "replace"), manifests, sent)
            for _, manifests, sent, length, name in self._slots.records()
        )
        return sorted(pulled, key=lambda each: (-each.manifests, -each.bytes, each.repository))[:count]
