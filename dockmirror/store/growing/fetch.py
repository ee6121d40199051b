"""One blob's way in, through whoever's hands."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from enum import Enum

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...content.resumed import PAUSES
from ...content.verified import Corrupt
from ...oci.digest import Digest
from ...oci.errors import RegistryError, Unavailable
from ..reader import FileReader
from .arrival import Arrival
from .behind import Behind
from .filling import Filling
from .finishing import Finishing
from .hashing import Hashing
from .means import Means
from .offer import Doubtful, Useless
from .partial import Partial, Place, Standing, open_partial
from .remainder import Remainder
from .stop import Forsaken, Stop


class Phase(Enum):
    """What is being done."""

    OPENING = "the file is opened"
    FOLLOWING = "another fills it"
    FILLING = "it is filled here"
    FINISHING = "it is right, and is named and linked"
    OVER = "nothing more is done"


class Fetch:
    """Brings a blob in, as long as it is wanted: fills its growing file, or follows it while another does.

    :ivar arrival: what there is of it, and for whom.
    :param may_go_on: whether it may be finished although nobody reads it.
    :param ended: is called when nothing more is done, with why not.
    """

    _log = Logger()

    def __init__(
        self,
        registry: str,
        digest: Digest,
        means: Means,
        may_go_on: Callable[[], bool],
        ended: Callable[[Exception | None], None],
    ) -> None:
        self.arrival = Arrival(means.clock, self._left)
        self.phase = Phase.OPENING
        self._registry = registry
        self._digest = digest
        self._means = means
        self._may_go_on = may_go_on
        self._ended = ended
        self._place = Place.of(means.root, registry, digest)
        self._finishing = Finishing(digest, means)
        self._stop = Stop()
        self._pauses = iter(PAUSES)
        self._doubted = False
        self._partial: Partial | None = None
        self._ours = False
        self._filling: Filling | None = None

    def begin(self) -> None:
        """Sets out; the first reader is there already."""
        Deferred.fromCoroutine(self._run()).addErrback(self._broken)

    @property
    def alone(self) -> bool:
        """Whether it fills a file that nobody reads."""
        return self.phase is Phase.FILLING and not self.arrival.readers

    async def link(self) -> None:
        """Says of every repository that was given the blob that it has it."""
        await self._finishing.link(self.arrival.repositories)

    def _left(self) -> None:
        if self.arrival.readers or self.arrival.verified:
            return
        if self._filling is None or not (self._filling.goes_on_alone and self._may_go_on()):
            self._stop.call_off(Forsaken())

    async def _run(self) -> None:
        while self.arrival.readers:
            try:
                return await self._bring()
            except Forsaken:
                self._let_go()
            except Useless as useless:
                if not self._may_begin_anew(useless):
                    return self._end(useless.error)
            except OSError as error:
                return await self._relay(error)
            except RegistryError as error:
                return self._end(error)
        return self._end(None)

    async def _bring(self) -> None:
        self.phase, self._stop = Phase.OPENING, Stop()
        partial, standing = await self._means.in_thread(lambda: open_partial(self._place))
        self._partial = partial
        file = FileReader(partial.file, self._means.in_thread)
        self.arrival.opened(file, partial.length())
        if standing is Standing.THEIRS:
            self.phase = Phase.FOLLOWING
            standing = await Behind(self.arrival, partial, self._stop, self._means.clock).follow()
        self._ours = standing is Standing.OURS
        if self._ours:
            self.phase = Phase.FILLING
            await self._fill(partial, file)
        elif standing is Standing.GONE:
            await self._check_abandoned(file)
        self.phase = Phase.FINISHING
        if not self.arrival.verified:
            self.arrival.verify()
        if self._ours:
            kept = await self._finishing.keep(partial)
            self._means.tally.kept += kept
            self._let_go(remove=not kept)
        await self.link()
        self._end(None)

    async def _fill(self, partial: Partial, file: FileReader) -> None:
        hashing = Hashing(self._digest, file)
        self._filling = Filling(
            self._digest, self.arrival, partial, file, hashing, self._stop, self._again, self._doubted,
            self._means,
        )  # fmt: skip
        await self._filling.fill()

    async def _check_abandoned(self, file: FileReader) -> None:
        """A file that was all there when it lost its name may be right: then another took its place."""
        length, hashing = self.arrival.length, Hashing(self._digest, file)
        if length == self.arrival.size:
            await hashing.catch_up(length, lambda: bool(self.arrival.readers))
        if hashing.hashed < length or not await hashing.verified(length):
            raise Useless(Unavailable("the fetch that was read behind was given up"))

    async def _again(self, error: RegistryError) -> None:
        if not self.arrival.readers:
            raise Forsaken
        pause = next(self._pauses, None)
        if pause is None:
            raise error
        self._means.tally.resumed += 1
        await self._stop.wait(lambda: deferLater(self._means.clock, pause))

    def _may_begin_anew(self, useless: Useless) -> bool:
        """Gives the file up; False where there were attempts enough of our own."""
        filled_here = self.phase is Phase.FILLING
        self._doubted = self._doubted or isinstance(useless, Doubtful)
        self._let_go(remove=True)
        self.arrival.begin_anew(useless.error)
        return not filled_here or next(self._pauses, None) is not None

    async def _relay(self, error: OSError) -> None:
        """The disk gives or takes nothing: each reader goes on by itself, or is told so."""
        self._means.trouble.note(error)
        remainder = None
        if self._filling is not None and not self.arrival.verified:
            with suppress(OSError):
                remainder = await self._filling.remainder()
        self._end(error, remainder)

    def _end(self, error: Exception | None, remainder: Remainder | None = None) -> None:
        self.phase = Phase.OVER
        if isinstance(error, Corrupt):
            where = f"{self._registry}: {self._digest}"
            self._log.error("{where}: {error}", where=where, error=str(error))
            self._means.tally.wrong += 1
        elif error is not None:
            self._means.tally.failed += 1
        self._let_go(remove=isinstance(error, Corrupt | OSError))
        self._ended(error)
        self.arrival.end(None if remainder else error, remainder)

    def _let_go(self, remove: bool = False) -> None:
        """Gives the lock back.  A file without a byte is removed in any case: guesses make such."""
        partial, self._partial, self._filling = self._partial, None, None
        if partial is None:
            return
        with suppress(OSError):
            if self._ours and (remove or not partial.length()):
                partial.remove()
        self._ours = False
        partial.unlock()

    def _broken(self, failure: Failure) -> None:
        self._log.failure("the fetch of {digest} broke", failure=failure, digest=self._digest)
        if self.phase is not Phase.OVER:
            self._end(Unavailable("the fetch broke"))
