"""The bucket told of what is used, and rid of what is not."""

from __future__ import annotations

from contextlib import suppress

from twisted.application.service import MultiService
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ...concurrency.periodic_task import PeriodicTask
from ..bucket.bucket_expiry import BucketExpiry
from ..bucket.last_used_journal import LastUsedJournal

TELL = 60.0
"""Seconds between two times that the bucket is told."""
LOOK = 3600.0
"""Seconds between two looks at whether it was cleaned today."""
_log = Logger()


class BucketMaintenance(MultiService):
    """Does both now and then; what the bucket does not take is tried the next time, and told of by itself.

    Nothing is asked before the mirror has served for a while; the uses of the last minute are told by nobody.
    """

    def __init__(self, uses: LastUsedJournal, aging: BucketExpiry, clock: IReactorTime) -> None:
        super().__init__()
        self._uses = uses
        self._aging = aging
        for work, period in ((self._tell, TELL), (self._look, LOOK)):
            PeriodicTask(work, period, clock, "the bucket cannot be cleaned").setServiceParent(self)

    async def _tell(self) -> None:
        with suppress(OSError):
            await self._uses.flush()

    async def _look(self) -> None:
        with suppress(OSError):
            await self._uses.flush()
            aged = await self._aging.run()
            if aged is not None:
                _log.info(
                    "the bucket is rid of {contents} contents of {size} bytes that nobody has used",
                    contents=aged.contents, size=aged.bytes,
                )  # fmt: skip
