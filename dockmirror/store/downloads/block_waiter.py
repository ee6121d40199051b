"""The waits of readers for blocks, and the blocks that one request of theirs fetches."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as Elapsed
from twisted.internet.interfaces import IReactorTime

from ...concurrency.coroutines import Changes
from ...interfaces import IPartSource
from ...oci.header_fields import Span
from .block_file import BLOCK
from .context import MAX_WAIT

POLL = 0.03
"""Seconds between two checks of blocks that another process fetches."""
_MIB = 1024 * 1024
NEAR_RUN = _MIB // BLOCK
"""Blocks of which a request for a closed part fetches the rest: readers often ask for what follows."""
OPEN_RUN = 8 * _MIB // BLOCK
"""Blocks of which a request for an open-ended part fetches the rest: their first is a multiple of this."""
MAX_RUN = 16 * _MIB // BLOCK
"""The most blocks that one request fetches."""


class RelayRequired(Exception):
    """Raised if a part, or its rest, must be fetched for its reader by itself."""


class BlocksDropped(RelayRequired):
    """Raised if the blocks have lost their name: a new reader may make new ones."""


@define(eq=False)
class BlockWaiter:
    """Waits for blocks, and fetches them with its source: a reader of a part, or the completion of the blob.

    :ivar is_granted: the upstream gives its client the blob.
    :ivar own: the fetch that it has begun last.
    :param changes: the changes of the download.
    :param consent: called when the upstream gives the blob.
    :param is_patient: it waits for the fetches of others as long as they take.
    """

    source: IPartSource
    _clock: IReactorTime
    _changes: Changes
    _consent: Callable[[], None]
    _is_patient: bool = False
    is_granted: bool = field(default=False, init=False)
    own: object | None = field(default=None, init=False)
    _failure: Exception | None = field(default=None, init=False)
    _waiting: Deferred[None] | None = field(default=None, init=False)
    _waited: float = field(default=0.0, init=False)  # seconds for others since its last progress

    def grant(self) -> None:
        """Record that the upstream gives the blob to this client, for its repository."""
        self.is_granted = True
        self._consent()

    def fail(self, error: Exception) -> None:
        """End the waiting with an error; the first one counts."""
        if self._failure is None:
            self._failure = error
            self._interrupt()

    def check(self) -> None:
        """:raises Exception: the failure of this reader."""
        if self._failure is not None:
            raise self._failure

    async def wait(self, seconds: float | None, own: bool = False) -> None:
        """Wait for the next change of the download, or so many seconds.

        :param own: it waits for a request of its own.
        :raises RelayRequired: if it has waited too long for others since its last progress.
        :raises Exception: the failure of this reader.
        """
        self.check()
        started, is_counted = self._clock.seconds(), not own and not self._is_patient
        if is_counted:
            left = MAX_WAIT - self._waited
            if left <= 0:
                raise RelayRequired
            seconds = left if seconds is None else min(left, seconds)
        self._waiting = waiting = self._changes.next()
        if seconds is not None:
            waiting.addTimeout(seconds, self._clock)
        try:
            await waiting
            waited = max(0.0, self._clock.seconds() - started)  # the clock may have been set back
        except Elapsed:
            waited = seconds or 0.0
        finally:
            self._waiting = None
        if is_counted:
            self._waited += waited
        self.check()

    def cancel(self) -> None:
        """Cancel the wait, if there is one."""
        if self._waiting is not None:
            self._waiting.cancel()

    def record_progress(self) -> None:
        self._waited = 0.0

    def _interrupt(self) -> None:
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(None)


def last_block(span: Span, position: int, last: int | None) -> int:
    """Return the last block that one request of a reader fetches, from the block of its position on.

    An open-ended part is fetched in steps, as it is read: its reader may leave at any time.  The last block
    may lie beyond the end of the blob.

    :param last: the last byte of the part; None if the size of the blob is not known yet.
    """
    block = position // BLOCK
    is_open_ended = span.first is not None and span.last is None
    end = block | (OPEN_RUN - 1) if is_open_ended else block + MAX_RUN - 1
    if last is None:
        return end if is_open_ended else block | (NEAR_RUN - 1)
    return min(last // BLOCK | (NEAR_RUN - 1), end)
