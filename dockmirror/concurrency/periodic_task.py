"""A service that runs a task periodically."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

_log = Logger()


class PeriodicTask(Service):
    """Runs a task once per period, also after a run that failed; runs do not overlap.

    :param work: the task; it is cancelled when the service stops.
    :param period: seconds from the start of one run to the next; a longer run skips some.
    :param trouble: the log message for an unexpected failure.
    :param at_once: True to run it also when the service starts.
    """

    def __init__(
        self,
        work: Callable[[], Awaitable[None]],
        period: float,
        clock: IReactorTime,
        trouble: str,
        at_once: bool = False,
    ) -> None:
        self._work = work
        self._period = period
        self._trouble = trouble
        self._at_once = at_once
        self._loop = LoopingCall(self._call)
        self._loop.clock = clock
        self._running: Deferred[None] | None = None

    def startService(self) -> None:
        super().startService()
        self._loop.start(self._period, now=self._at_once)

    def stopService(self) -> None:
        """Cancel the current run, without waiting."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        if self._running is not None:
            self._running.cancel()

    def _call(self) -> Deferred[None]:
        self._running = Deferred.fromCoroutine(self._run_once())
        return self._running

    async def _run_once(self) -> None:
        try:
            await self._work()
        except CancelledError:
            pass
        except Exception:
            _log.failure("{trouble}", trouble=self._trouble)
