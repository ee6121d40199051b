"""The hash of a growing file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from ...oci.digest import Digest
from ..threads import InThread

_STEP = 8 * 1024 * 1024
_PIECE = 1024 * 1024


class Hashing:
    """Hashes a growing file's bytes in their order.

    What is received is hashed as it passes; a thread that follows the file could do it as well: what
    asks here says how far the file goes, and waits for nothing but the verdict.

    :ivar hashed: how many bytes were.
    """

    def __init__(self, digest: Digest, in_thread: InThread) -> None:
        self.hashed = 0
        self._digest = digest
        self._hash = hashlib.new(digest.algorithm)
        self._in_thread = in_thread

    async def catch_up(self, file: int, until: int, wanted: Callable[[], bool]) -> None:
        """Hashes what lies in the file already, in a thread; ends early where that is not wanted any more.

        It cannot be cancelled: the file stays open until it ends.
        """
        while self.hashed < until and wanted():
            await self._in_thread(lambda: self._step(file, min(until, self.hashed + _STEP)))

    def update(self, data: bytes) -> None:
        """The file has grown by these bytes."""
        self._hash.update(data)
        self.hashed += len(data)

    async def verified(self) -> bool:
        """Whether all bytes up to now are those of the digest."""
        return self._hash.hexdigest() == self._digest.hex

    def copy(self) -> Hashing:
        """Another that goes on from here."""
        copied = Hashing(self._digest, self._in_thread)
        copied.hashed, copied._hash = self.hashed, self._hash.copy()
        return copied

    def _step(self, file: int, until: int) -> None:
        while self.hashed < until:
            data = os.pread(file, min(_PIECE, until - self.hashed), self.hashed)
            if not data:
                raise OSError(f"a growing file is shorter than {until} bytes, which it was")
            self.update(data)
