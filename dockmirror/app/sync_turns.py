"""Turns, by which one of the mirrors that share a bucket runs a rule that keeps images in sync."""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime

from ..store import layout

if TYPE_CHECKING:
    from ..store.bucket.bucket import Bucket

LEASE = 3600.0
"""Seconds after which another mirror takes over a turn that its owner has neither renewed nor completed."""
RENEWAL = 300.0
"""Seconds between two renewals of a turn."""


@frozen
class SyncTurn:
    """The turn to run a rule in one period of its schedule.

    :ivar path: the path of its object in the bucket.
    :ivar owner: identifies the mirror that has it.
    :ivar until: when another mirror may take over, in seconds since the epoch.
    :ivar images: the images that match the rule, once the run is complete; None before.
    """

    path: PurePosixPath
    owner: str
    until: float
    images: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, path: PurePosixPath, data: bytes) -> SyncTurn:
        """Parse an object; a malformed one has no owner, and can be taken over."""
        try:
            fields = json.loads(data)
            images = fields["images"]
            named = None if images is None else tuple(map(str, images))
            return cls(path, str(fields["owner"]), float(fields["until"]), named)
        except (ValueError, KeyError, TypeError):
            return cls(path, "", 0.0)

    def __bytes__(self) -> bytes:
        return json.dumps({"owner": self.owner, "until": self.until, "images": self.images}).encode()


class SyncTurns:
    """Gives the turn to run a rule to one of the mirrors that share a bucket.

    An object states who has the turn.  Its owner renews it while it runs the rule, and adds the images that
    match when the run is complete.  If it stops, another mirror takes over: it makes the object of the next
    attempt, which only one of them can.

    :param bucket: the bucket; None if the cache is on the local disk only.
    """

    def __init__(self, bucket: Bucket | None, clock: IReactorTime) -> None:
        self._bucket = bucket
        self._clock = clock

    async def claim(self, key: str, period: int, owner: str) -> SyncTurn:
        """Return the turn of a rule in a period: the mirror's own, or that of another one.

        :raises OSError: when the bucket fails.
        """
        bucket, until = self._bucket, self._clock.seconds() + LEASE
        if bucket is None:
            return SyncTurn(PurePosixPath(), owner, until)
        turn = SyncTurn(_path(key, period, 0), owner, until)
        if await bucket.put_new(turn.path, bytes(turn)):
            await self._delete_earlier(bucket, key, turn.path)
            return turn
        names = [PurePosixPath(each.key).name for each in await bucket.list(layout.SYNC_TURNS)]
        last = max((n for name in names if (n := _attempt(name, key, period)) is not None), default=0)
        found = await self._read(bucket, _path(key, period, last))
        if found.owner == owner or found.images is not None or self._clock.seconds() < found.until:
            return found
        turn = SyncTurn(_path(key, period, last + 1), owner, until)
        return turn if await bucket.put_new(turn.path, bytes(turn)) else await self._read(bucket, turn.path)

    async def _delete_earlier(self, bucket: Bucket, key: str, path: PurePosixPath) -> None:
        with suppress(OSError):  # logged by the bucket; the next turn deletes what is left
            listed = [each.key for each in await bucket.list(layout.SYNC_TURNS)]
            ours = [each for each in listed if PurePosixPath(each).name.startswith(f"{key}-")]
            await bucket.delete([each for each in ours if PurePosixPath(each).name != path.name])

    async def _read(self, bucket: Bucket, path: PurePosixPath) -> SyncTurn:
        found = await bucket.read(path)
        return SyncTurn.parse(path, found[0] if found else b"")

    async def extend(self, turn: SyncTurn, until: float) -> SyncTurn:
        """Keep the mirror's own turn until a time."""
        return await self._put(evolve(turn, until=until))

    async def complete(self, turn: SyncTurn, images: Collection[str]) -> SyncTurn:
        """Tell the other mirrors which images match."""
        return await self._put(evolve(turn, images=tuple(images)))

    async def _put(self, turn: SyncTurn) -> SyncTurn:
        if self._bucket is not None:
            with suppress(OSError):  # logged by the bucket; at worst another mirror runs the rule, too
                await self._bucket.put(turn.path, bytes(turn))
        return turn


def _path(key: str, period: int, attempt: int) -> PurePosixPath:
    return layout.SYNC_TURNS / f"{key}-{period}-{attempt}"


def _attempt(name: str, key: str, period: int) -> int | None:
    """Return the number of the attempt that an object is of; None if it is of another period."""
    number = name.removeprefix(f"{key}-{period}-")
    return int(number) if number != name and number.isdecimal() else None
