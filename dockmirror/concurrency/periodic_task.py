"""Services that run a task periodically: always, or while there is something to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

_log = Logger()


class PeriodicTask(Service):
    """Runs a task once per period, also after a run that failed; runs do not overlap.

    :param work: the task; it is cancelled when the service stops.
    :param period: seconds from the start of one run to the next; a longer run skips some.
    :param trouble: the log message for a failure; one other than an OSError is logged with its traceback.
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
        except OSError as error:
            _log.warn("{trouble}: {error}", trouble=self._trouble, error=str(error))
        except Exception:
            _log.failure("{trouble}", trouble=self._trouble)


class BusyTask(Service):
    """Runs a task once per period while there is something to do; an idle process is not woken.

    :param work: the task; it does not fail.
    :param is_busy: tells after each run if there will be more to do.
    :param period: seconds from ``wake``, or the last run, to the next run.
    """

    def __init__(
        self, work: Callable[[], object], is_busy: Callable[[], bool], period: float, clock: IReactorTime
    ) -> None:
        self._work = work
        self._is_busy = is_busy
        self._period = period
        self._clock = clock
        self._timer: IDelayedCall | None = None

    def startService(self) -> None:
        super().startService()
        if self._is_busy():
            self.wake()

    def stopService(self) -> None:
        super().stopService()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def wake(self) -> None:
        """Run the task after a period, unless that is planned already."""
        if self._timer is None and self.running:
            self._timer = self._clock.callLater(self._period, self._run)

    def _run(self) -> None:
        self._timer = None
        self._work()
        if self._is_busy():
            self.wake()
