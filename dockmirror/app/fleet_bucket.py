"""The sums of a fleet: each mirror puts its own into the bucket that all share, and each can read all."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..concurrency.coroutines import RunInThread
from ..concurrency.periodic_task import PeriodicTask
from ..history.fleet import FleetDay, FleetMirror, FleetSums, claim_upload, confirm_upload, read_day
from ..history.history_writer import SUMS_DAYS
from ..history.pulls import HistoryError
from ..store import layout

if TYPE_CHECKING:
    from ..store.bucket.blocking_bucket import BucketAddress, ListedObject
    from ..store.bucket.bucket import Bucket

CHECK_PERIOD = 60.0
"""Seconds between two checks for sums to upload."""
_DAY = 86_400
_READERS = 8
_log = Logger()


class FleetUploader(PeriodicTask):
    """Puts the sums of a mirror's history into the bucket, every ten minutes.

    What a failing bucket did not take is put there the next time.

    :param path: the file of the history, which several processes may share.
    :param mirror: the name of the machine.
    """

    def __init__(
        self,
        path: Path,
        mirror: str,
        version: str,
        bucket: Bucket,
        clock: IReactorTime,
        in_thread: RunInThread,
    ) -> None:
        super().__init__(self.run, CHECK_PERIOD, clock, "cannot upload the sums of the history", at_once=True)
        self._path = path
        self._mirror = mirror
        self._version = version
        self._bucket = bucket
        self._clock = clock
        self._in_thread = in_thread

    async def run(self) -> None:
        """Upload the sums that have changed, if it is time."""
        try:
            await self._upload()
        except sqlite3.Error as error:
            _log.warn("the history cannot be read for the fleet: {error}", error=str(error))
        except OSError:  # logged by the bucket
            pass

    async def _upload(self) -> None:
        now = self._clock.seconds()
        upload = await self._in_thread(partial(claim_upload, self._path, now))
        if upload is None:
            return
        mirror = FleetMirror(self._mirror, self._version, now)
        for day in upload.days:
            sums = await self._in_thread(lambda day=day: bytes(read_day(self._path, day, mirror)))  # type: ignore[misc]
            await self._bucket.put(layout.fleet_day(day, upload.history), sums)
        if upload.is_first:
            await self._expire(int(now // _DAY) - SUMS_DAYS)
        await self._in_thread(partial(confirm_upload, self._path, now))

    async def _expire(self, oldest: int) -> None:
        """Delete the sums of earlier days, those of mirrors that are gone too."""
        listed = await self._bucket.list(layout.FLEET)
        days = ((each.key, layout.parse_fleet_day(each.key)) for each in listed)
        await self._bucket.delete([key for key, day in days if day is not None and day < oldest])


class FleetReader:
    """Reads the sums of all mirrors; its calls block. Objects that have not changed are read once."""

    def __init__(self, address: BucketAddress) -> None:
        from ..store.bucket.blocking_bucket import open_for_small_objects

        self._name = str(address)
        self._bucket = open_for_small_objects(address)
        self._known: dict[ListedObject, FleetDay | None] = {}

    def read(self, since: float) -> FleetSums:
        """Return the sums of the days from that time on.

        :raises HistoryError: when the bucket fails.
        """
        from obstore.exceptions import BaseError

        from ..store.bucket.bucket import describe_error

        try:
            return FleetSums(self._read(int(since // _DAY)))
        except (BaseError, OSError) as error:
            raise HistoryError(
                f"the sums of the fleet cannot be read from {self._name}: {describe_error(error)}"
            ) from None

    def _read(self, first: int) -> Sequence[FleetDay]:
        listed = [
            each
            for each in self._bucket.list(str(layout.FLEET))
            if (day := layout.parse_fleet_day(each.key)) is not None and day >= first
        ]
        with ThreadPoolExecutor(_READERS) as pool:
            found = dict(zip(listed, pool.map(self._read_day, listed), strict=True))
        self._known = found
        return [each for each in found.values() if each is not None]

    def _read_day(self, listed: ListedObject) -> FleetDay | None:
        if listed in self._known:
            return self._known[listed]
        data, day = self._bucket.read(listed.key), layout.parse_fleet_day(listed.key)
        assert day is not None
        return FleetDay.parse(day, data) if data is not None else None
