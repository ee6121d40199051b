"""Which repositories are pulled most, in memory that several processes may share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from struct import Struct

from attrs import frozen

_LONGEST = 300
_RECORD = Struct(f"<QQQH{_LONGEST}s")
"""Whose it is, how many manifests and how many bytes were sent, and its name."""
_TRIED = 8
SIZE = 4096 * _RECORD.size
"""Bytes of memory for so many repositories at a time; of more, those are forgotten that are pulled least."""


@frozen
class Pulled:
    """A repository, with the registry's name in front, and what clients were sent of it.

    :ivar manifests: of a pull one or two: an image's for several platforms is pulled by its index.
    """

    repository: str
    manifests: int
    bytes: int


class Popular:
    """A table of repositories, each in one of a few slots that its name picks.

    Processes that write at the same moment may lose one of two additions, and nothing else.

    :param memory: of ``SIZE`` bytes or fewer, zero at first.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._slots = len(memory) // _RECORD.size

    def sent(self, repository: str, manifests: int = 0, bytes: int = 0) -> None:
        """A client was sent so much of it."""
        name = repository.encode()[:_LONGEST]
        key = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") or 1
        place, before, sent = self._find(key)
        _RECORD.pack_into(
            self._memory, place, key, before + manifests, sent + bytes, len(name), name
        )  # fmt: skip

    def most(self, count: int) -> Sequence[Pulled]:
        """So many of them, the most pulled first."""
        records = _RECORD.iter_unpack(self._memory[: self._slots * _RECORD.size])
        pulled = (
            Pulled(name[:length].decode("utf-8", "replace"), manifests, sent)
            for key, manifests, sent, length, name in records if key
        )  # fmt: skip
        return sorted(pulled, key=lambda each: (-each.manifests, -each.bytes, each.repository))[:count]

    def _find(self, key: int) -> tuple[int, int, int]:
        """Its own slot, or else the one of these that is missed least, with nothing in it."""
        least, its_count = 0, (float("inf"), 0)
        for step in range(_TRIED):
            place = (key + step) % self._slots * _RECORD.size
            whose, manifests, sent, _, _ = _RECORD.unpack_from(self._memory, place)
            if whose == key:
                return place, manifests, sent
            count = (manifests, sent) if whose else (-1, 0)
            if count < its_count:
                least, its_count = place, count
        return least, 0, 0
