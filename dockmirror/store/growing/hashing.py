"""The hash of a growing file."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from twisted.internet.defer import DeferredLock

from ...oci.digest import Digest, Verifier
from ..reader import FileReader

STEP = 4 * 1024 * 1024
"""How many bytes a thread is given to hash at a time."""
_PIECE = 1024 * 1024


class Hashing:
    """Hashes a growing file's bytes in their order, in threads that follow whoever fills it.

    :ivar hashed: how many bytes were.
    """

    def __init__(self, digest: Digest, file: FileReader) -> None:
        self.hashed = 0
        self._verifier = digest.verifier()
        self._file = file
        self._one_at_a_time = DeferredLock()
        self._error: OSError | None = None

    async def catch_up(self, until: int, wanted: Callable[[], bool] = lambda: True) -> None:
        """Hashes what lies in the file up to there; ends early where that is not wanted any more.

        :raises OSError: when the disk does not give it, or has not before: it is not asked again.
        """
        async with self._one_at_a_time:
            while self.hashed < until and wanted():
                await self._hash_to(min(until, self.hashed + STEP))

    async def verified(self, length: int) -> bool:
        """Whether so many bytes, which lie in the file and are all that was hashed, are the blob.

        :raises OSError: when the disk does not give them.
        """
        await self.catch_up(length)
        return self._verifier.verified()

    def verifier(self) -> Verifier:
        """A check that goes on from here by itself; nothing is being hashed just now."""
        return self._verifier.copy()

    async def _hash_to(self, until: int) -> None:
        if self._error is not None:
            raise self._error
        try:
            await self._file.in_thread(partial(self._step, until=until))
        except OSError as error:
            self._error = error
            raise

    def _step(self, file: int, until: int) -> None:
        buffer = memoryview(bytearray(min(_PIECE, until - self.hashed)))
        while self.hashed < until:
            count = os.preadv(file, [buffer[: until - self.hashed]], self.hashed)
            if not count:
                raise OSError(f"a growing file is shorter than {until} bytes, which it was")
            self._verifier.update(buffer[:count])
            self.hashed += count
