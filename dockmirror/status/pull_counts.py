"""Which repositories are pulled most, in memory that several processes may share."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from attrs import frozen

from ..system.shared_table import SharedTable, hash_key

_LONGEST = 300
_RECORD = Struct(f"<QQQH{_LONGEST}s")
"""Whose it is, how many manifests and how many bytes were sent, and its name."""
SIZE = 4096 * _RECORD.size
"""Bytes of memory for so many repositories at a time."""


@frozen
class RepositoryPulls:
    """A repository, with the registry's name in front, and what clients were sent of it.

    :ivar manifests: of a pull one or two: an image's for several platforms is pulled by its index.
    """

    repository: str
    manifests: int
    bytes: int


class PullCounts:
    """A table of repositories; where there are too many those are forgotten that are pulled least.

    :param memory: of ``SIZE`` bytes or fewer, zero at first.
    """

    def __init__(self, memory: memoryview) -> None:
        self._slots = SharedTable(memory, _RECORD, lambda record: record[1:3])

    def sent(self, repository: str, manifests: int = 0, bytes: int = 0) -> None:
        """A client was sent so much of it."""
        name = repository.encode()[:_LONGEST]
        key = hash_key(name)
        place, record = self._slots.find(key)
        before, sent = record[1:3] if record else (0, 0)
        self._slots.put(place, key, before + manifests, sent + bytes, len(name), name)

    def most(self, count: int) -> Sequence[RepositoryPulls]:
        """So many of them, the most pulled first."""
        pulled = (
            RepositoryPulls(name[:length].decode("utf-8", "replace"), manifests, sent)
            for _, manifests, sent, length, name in self._slots.records()
        )
        return sorted(pulled, key=lambda each: (-each.manifests, -each.bytes, each.repository))[:count]
