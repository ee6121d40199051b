"""Work that is done over and over for as long as the mirror runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

_log = Logger()


class PeriodicTask(Service):
    """Does it one time after the other; where it fails, it is done the next time all the same.

    :param work: fires when it is done; it is cancelled when the service stops.
    :param period: seconds from one beginning to the next; what takes longer leaves some out.
    :param trouble: what is said of a failure that the work does not expect.
    :param at_once: whether it is done when the service starts, too.
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
        self._calling = LoopingCall(self._call)
        self._calling.clock = clock
        self._running: Deferred[None] | None = None

    def startService(self) -> None:
        """Called when the reactor is about to run."""
        super().startService()
        self._calling.start(self._period, now=self._at_once)

    def stopService(self) -> None:
        """Leaves what is being done, and waits for nothing."""
        super().stopService()
        if self._calling.running:
            self._calling.stop()
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
