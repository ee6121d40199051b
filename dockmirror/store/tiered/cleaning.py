"""The bucket told of what is used, and rid of what is not."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..objects.aging import Aging
from ..objects.uses import Uses

TELL = 60.0
"""Seconds between two times that the bucket is told."""
LOOK = 3600.0
"""Seconds between two looks at whether it was cleaned today."""
_log = Logger()


class Cleaning(Service):
    """Does both now and then; what the bucket does not take is tried the next time."""

    def __init__(self, uses: Uses, aging: Aging, clock: IReactorTime) -> None:
        self._uses = uses
        self._aging = aging
        self._calls = (self._every(self._uses.tell, clock), self._every(self._look, clock))
        self._running: set[Deferred[None]] = set()

    def startService(self) -> None:
        """Nothing is asked before the mirror has served for a while."""
        super().startService()
        for call, seconds in zip(self._calls, (TELL, LOOK), strict=True):
            call.start(seconds, now=False).addErrback(lambda _: None)

    def stopService(self) -> None:
        """Leaves what runs; the uses of the last minute are told by nobody."""
        super().stopService()
        for call in self._calls:
            if call.running:
                call.stop()
        for running in list(self._running):
            running.cancel()

    async def _look(self) -> None:
        await self._uses.tell()
        aged = await self._aging.look()
        if aged is not None:
            _log.info(
                "the bucket is rid of {contents} contents of {size} bytes that nobody has used",
                contents=aged.contents, size=aged.bytes,
            )  # fmt: skip

    def _every(self, work: Callable[[], Coroutine[Any, Any, None]], clock: IReactorTime) -> LoopingCall:
        def call() -> Deferred[None]:
            running: Deferred[None] = Deferred.fromCoroutine(work())
            self._running.add(running)
            return running.addErrback(_left).addBoth(lambda _: self._running.discard(running))

        calling = LoopingCall(call)
        calling.clock = clock
        return calling


def _left(failure: Failure) -> None:
    """The bucket tells itself that it fails."""
    if not failure.check(CancelledError, OSError):
        _log.failure("the bucket cannot be cleaned", failure=failure)
