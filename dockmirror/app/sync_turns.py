"""Turns, by which one of the mirrors that share a bucket runs a rule that keeps images in sync."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
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
    :ivar period: of a complete run, the number of the period in which it ended.
    """

    path: PurePosixPath
    owner: str
    until: float
    images: tuple[str, ...] | None = None
    period: int = 0

    @classmethod
    def parse(cls, path: PurePosixPath, data: bytes) -> SyncTurn:
        """Parse an object; a malformed one has no owner, and can be taken over."""
        try:
            fields = json.loads(data)
            images = fields["images"]
            named = None if images is None else tuple(map(str, images))
            return cls(
                path, str(fields["owner"]), float(fields["until"]), named, int(fields.get("period", 0))
            )
        except (ValueError, KeyError, TypeError):
            return cls(path, "", 0.0)

    def __bytes__(self) -> bytes:
        fields = {"owner": self.owner, "until": self.until, "images": self.images, "period": self.period}
        return json.dumps(fields).encode()

    def is_running(self, now: float) -> bool:
        """Return whether no other mirror may run the rule yet."""
        return self.images is None and now < self.until


class SyncTurns:
    """Gives the turn to run a rule to one of the mirrors that share a bucket.

    An object states who has the turn.  Its owner renews it while it runs the rule, and adds the images that
    match when the run is complete.  A run that outlasts its period keeps the turn, and counts for the period
    in which it ends.  If the owner stops, another mirror takes over: it makes the object of the next attempt,
    or of the next period, which only one of them can.

    :param bucket: the bucket; None if the cache is on the local disk only.
    """

    def __init__(self, bucket: Bucket | None, clock: IReactorTime) -> None:
        self._bucket = bucket
        self._clock = clock

    async def claim(self, key: str, period: int, owner: str) -> SyncTurn:
        """Return the turn of a rule in a period: the mirror's own, or that of another one.

        :raises OSError: when the bucket fails.
        """
        bucket, now = self._bucket, self._clock.seconds()
        if bucket is None:
            return SyncTurn(PurePosixPath(), owner, now + LEASE)
        listed = await self._list(bucket, key)
        last = await self._read(bucket, listed[-1].path) if listed else None
        place, until = _Place(key, period, 0), now + LEASE
        if last is not None:
            if max(last.period, listed[-1].period) >= period:
                if last.owner == owner or last.images is not None or last.is_running(now):
                    return last
                place = evolve(listed[-1], attempt=listed[-1].attempt + 1)
            elif last.is_running(now):
                if last.owner != owner:
                    return last
                until = last.until  # a run that always fails is left to another mirror at last
        turn = SyncTurn(place.path, owner, until)
        if not await bucket.put_new(turn.path, bytes(turn)):
            return await self._read(bucket, turn.path) or SyncTurn(turn.path, "", 0.0)
        await self._delete(bucket, listed, owner)
        return turn

    async def delete(self, key: str, owner: str) -> None:
        """Delete the turns of a removed rule, but not one that another mirror still has."""
        if self._bucket is not None:
            with suppress(OSError):  # logged by the bucket; what is left does no harm
                await self._delete(self._bucket, await self._list(self._bucket, key), owner)

    async def _list(self, bucket: Bucket, key: str) -> list[_Place]:
        """Return the turns of a rule, the latest one last."""
        listed = [_Place.parse(PurePosixPath(each.key).name) for each in await bucket.list(layout.SYNC_TURNS)]
        return sorted(each for each in listed if each is not None and each.key == key)

    async def _read(self, bucket: Bucket, path: PurePosixPath) -> SyncTurn | None:
        """Return a turn; None if its object was deleted a moment ago, since there is a later one."""
        found = await bucket.read(path)
        return SyncTurn.parse(path, found[0]) if found else None

    async def _delete(self, bucket: Bucket, places: Iterable[_Place], owner: str) -> None:
        """Delete turns, but not one that another mirror has."""
        now = self._clock.seconds()
        with suppress(OSError):  # logged by the bucket; the next turn deletes what is left
            found = [await self._read(bucket, each.path) for each in places]
            ended = [each for each in found if each and (each.owner == owner or not each.is_running(now))]
            await bucket.delete([str(each.path) for each in ended])

    async def extend(self, turn: SyncTurn, until: float) -> SyncTurn:
        """Keep the mirror's own turn until a time."""
        return await self._put(evolve(turn, until=until))

    async def complete(self, turn: SyncTurn, images: Collection[str], period: int) -> SyncTurn:
        """Tell the other mirrors which images match.

        :param period: the period that it is now.
        """
        return await self._put(evolve(turn, images=tuple(images), period=period))

    async def _put(self, turn: SyncTurn) -> SyncTurn:
        if self._bucket is not None:
            with suppress(OSError):  # logged by the bucket; at worst another mirror runs the rule, too
                await self._bucket.put(turn.path, bytes(turn))
        return turn


@frozen(order=True)
class _Place:
    """The place of a turn's object: later periods and attempts are greater."""

    key: str
    period: int
    attempt: int

    @classmethod
    def parse(cls, name: str) -> _Place | None:
        key, *numbers = name.rsplit("-", 2)
        if len(numbers) != 2 or not all(each.isdecimal() for each in numbers):
            return None
        return cls(key, int(numbers[0]), int(numbers[1]))

    @property
    def path(self) -> PurePosixPath:
        return layout.SYNC_TURNS / f"{self.key}-{self.period}-{self.attempt}"
