"""What is used of a bucket, told by each mirror to all."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from secrets import token_hex

from twisted.internet.interfaces import IReactorTime

from ...concurrency.ttl_cache import TTLCache
from ...oci.digest import Digest
from ...oci.errors import DigestInvalid
from .. import layout
from .bucket import Bucket

TOLD = 6 * 3600.0
"""Seconds for which a use that was told stands for those that follow."""
_MOST = 1_000_000
_AT_ONCE = 900


class LastUsedJournal:
    """Objects of lines, each with a content and when it was used; whoever cleans makes one of them."""

    def __init__(self, bucket: Bucket, clock: IReactorTime) -> None:
        self._bucket = bucket
        self._clock = clock
        self._told: TTLCache[Digest, bool] = TTLCache(clock, _MOST)
        self._untold: dict[Digest, float] = {}

    def note(self, digest: Digest) -> None:
        """The content is used now."""
        if not self._told.get(digest):
            self._told.put(digest, True, TOLD)
            self._untold[digest] = self._clock.seconds()

    async def flush(self) -> None:
        """Tells what was noted.

        :raises OSError: when the bucket takes nothing; it is told the next time then.
        """
        if not self._untold:
            return
        untold, self._untold = self._untold, {}
        try:
            await self._bucket.put(layout.USES / token_hex(8), _written(untold))
        except BaseException:
            self._untold = {**untold, **self._untold}
            raise

    async def load(self, since: float) -> Mapping[Digest, float]:
        """When each content was used last, by any mirror, where that was not before; told as one from now on.

        :raises OSError: when the bucket does not give or take it.
        """
        found: dict[Digest, float] = {}
        told = [each.key for each in await self._bucket.list(layout.USES)]
        for key in told:
            read = await self._bucket.read(layout.USES / key.rpartition("/")[2])
            for digest, used in _read(read[0] if read else b""):
                found[digest] = max(used, found.get(digest, 0.0))
        found = {digest: used for digest, used in found.items() if used >= since}
        if len(told) > 1:
            await self._bucket.put(layout.USES / token_hex(8), _written(found))
            for first in range(0, len(told), _AT_ONCE):
                await self._bucket.delete(told[first : first + _AT_ONCE])
        return found


def _written(uses: Mapping[Digest, float]) -> bytes:
    return "".join(f"{digest} {used:.0f}\n" for digest, used in uses.items()).encode()


def _read(data: bytes) -> list[tuple[Digest, float]]:
    found = []
    for line in data.decode("ascii", "replace").splitlines():
        digest, _, used = line.partition(" ")
        with suppress(DigestInvalid, ValueError):
            found.append((Digest.parse(digest), float(used)))
    return found
