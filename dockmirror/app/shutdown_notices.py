"""Tell the operator what a shutdown waits for, and end it at once at a second signal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

STOP_NOW_LIMIT = 5.0
"""Seconds after a second signal until the process exits, whatever it waits for."""
_log = Logger()


class ShutdownNotices:
    """Announces a shutdown in the log, and cuts off the transfers that it waits for.

    :param count_transfers: returns the number of running transfers.
    :param abort: cuts them off.
    :param leave: ends the process without waiting for anything.
    """

    def __init__(
        self,
        count_transfers: Callable[[], Coroutine[Any, Any, int]],
        abort: Callable[[], None],
        clock: IReactorTime,
        leave: Callable[[], object],
    ) -> None:
        self._count_transfers = count_transfers
        self._abort = abort
        self._clock = clock
        self._leave = leave

    def announce(self, received: signal.Signals) -> None:
        """Log the number of transfers that are finished first."""
        again = "Ctrl-C" if received == signal.SIGINT else received.name
        Deferred.fromCoroutine(self._announce(again)).addErrback(
            lambda failure: _log.failure("cannot count the transfers", failure=failure)
        )

    def stop_now(self) -> None:
        """Cut off all transfers; the process exits within seconds."""
        _log.warn("stopping now; running transfers are cut off")
        self._abort()
        self._clock.callLater(STOP_NOW_LIMIT, self._leave)

    async def _announce(self, again: str) -> None:
        count = await self._count_transfers()
        if count:
            transfers = "1 transfer" if count == 1 else f"{count} transfers"
            _log.info("finishing {transfers}; {again} again stops now", transfers=transfers, again=again)
        else:
            _log.info("stopping")
