"""What goes when the budget is spent."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ..threads import RunInThread
from .budget import Budget, Shortfall, read_figures
from .sweep import Sweep, SweepResult, SweepStopped

PERIOD = 10.0
"""Seconds between two looks at whether the budget is kept."""


class Eviction:
    """Keeps to a budget, in the background, whichever processes share the directory.

    Every few seconds the bytes that were added are summed up.  Only where these pass the budget, or the
    file system has too little free, or nobody has counted for a day, the directory is walked, in a thread
    and by one process at a time; and what was used least recently goes, until a tenth of the budget is
    spare.  Nothing is kept that a walk would not find out again.

    :ivar held: how many bytes there are, as far as is known.
    :ivar walks: how many walks this process has made.
    :ivar evicted: how many contents it has evicted; ``evicted_bytes``, how many bytes these were.
    :ivar dropped: how many parts of blobs it has dropped that nobody wanted any more.
    """

    def __init__(self, root: Path, clock: IReactorTime, in_thread: RunInThread, budget: Budget) -> None:
        self.held = self.walks = self.evicted = self.evicted_bytes = self.dropped = 0
        self._root = root
        self._clock = clock
        self._in_thread = in_thread
        self._sweep = Sweep(root, budget)
        self._grown = 0
        self._lacking = False
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        self._ended: Deferred[LoopingCall] | None = None
        self._log = Logger()

    def grown(self, size: int) -> None:
        """So many bytes have been added."""
        self._grown += size

    @property
    def limit(self) -> int:
        """How many bytes there may be."""
        return self._sweep.budget.size

    def set_budget(self, budget: Budget) -> None:
        """From the next look on."""
        self._sweep.budget = budget

    def start(self) -> None:
        """Begins to look, after a while: nothing is walked before anybody is served."""
        self._ended = self._looking.start(PERIOD, now=False)

    async def stop(self) -> None:
        """Looks no more; fires when a walk that was under way has ended."""
        self._sweep.stop()
        if self._ended is not None:
            self._looking.stop()
            await self._ended

    async def _look(self) -> None:
        grown, self._grown = self._grown, 0
        swept: SweepResult | None = None
        try:
            swept = await self._in_thread(partial(self._sweep.run, grown, self._clock.seconds()))
        except SweepStopped:
            return
        except OSError as error:
            self._log.error("the cache's budget cannot be kept: {error}", error=error)
        except Exception:
            self._log.failure("the cache's budget cannot be kept")
        if swept is None:
            self._grown += grown
            await self._learn()
        else:
            self._note(swept)

    async def _learn(self) -> None:
        """Take over what the process has counted that looks just now."""
        known = await self._in_thread(partial(read_figures, self._root))
        if known is not None:
            self.held = known.held

    def _note(self, swept: SweepResult) -> None:
        self.held = swept.held
        self.dropped += swept.dropped
        if swept.evicted is None:
            return
        self.walks += 1
        self._tell(swept)
        self.evicted += len(swept.evicted.contents)
        self.evicted_bytes += swept.evicted.bytes
        if swept.evicted.contents:
            self._log.info(
                "evicted {count} contents of {size} bytes; {held} bytes are held",
                count=len(swept.evicted.contents),
                size=swept.evicted.bytes,
                held=swept.held,
            )

    def _tell(self, swept: SweepResult) -> None:
        """Once, when too little is free although all has gone that may, and when that ends."""
        lacking, before = swept.shortfall, self._lacking
        self._lacking = lacking is not None
        if lacking is not None and not before:
            self._log.warn(
                "the cache keeps only what is in use: its file system has too little free,"
                " {lacking} less than 'min_free' asks for",
                lacking=_counted(lacking),
            )
        elif before and lacking is None:
            self._log.info("the cache's file system has enough free again")


def _counted(lacking: Shortfall) -> str:
    counts = [f"{lacking.bytes / 1e9:.3g} GB"] if lacking.bytes > 0 else []
    return " and ".join([*counts, f"{lacking.inodes} inodes"] if lacking.inodes > 0 else counts)
