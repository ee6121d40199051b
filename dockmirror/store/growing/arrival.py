"""A blob on its way in, as this process sees it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from ...content.verified import HOLD
from ...interfaces import ISource
from ...oci.errors import Unavailable
from ...oci.ranges import ContentRange
from ...oci.reference import Repository
from ..reader import FileReader
from .remainder import Remainder, passable


class Reader(Protocol):
    """One who reads a blob on its way in."""

    size: int | None
    entered: bool
    given: bool

    @property
    def source(self) -> ISource:
        """How this reader would fetch the blob."""

    def grant(self) -> None:
        """The upstream has given the blob to this reader's source."""

    def changed(self) -> None:
        """There is more to be read, or something else has become of it."""

    def fail(self, error: Exception) -> None:
        """Nothing more will come; the reader leaves."""


class Arrival:
    """What there is of a blob, and who reads it; whoever fills or follows the file says what changes.

    Of more bytes only those readers are told who have asked to be, once: a thousand slow ones cost the
    filler nothing.  Of everything else all are told.

    :ivar file: None before it was opened, and between one that was given up and the next.
    :ivar length: how many bytes lie in the file.
    :ivar answered: whether it is known what the upstream says of the size.
    :ivar size: how many bytes there will be; None where the upstream does not tell.
    :ivar verified: whether these bytes are the blob, whole.
    :ivar remainder: how readers go on by themselves, where the disk was full.
    :ivar repositories: that were given the blob by the upstream, in the store's names.
    :param left: is called when a reader has left.
    """

    def __init__(self, clock: IReactorTime, left: Callable[[], None]) -> None:
        self.file: FileReader | None = None
        self.length = 0
        self.answered = False
        self.size: int | None = None
        self.verified = False
        self.remainder: Remainder | None = None
        self.repositories: set[Repository] = set()
        self._clock = clock
        self._left = left
        self._readers: dict[Reader, None] = {}
        self._hungry: dict[Reader, None] = {}
        self._since = (0.0, 0)
        self._over = False

    @property
    def readers(self) -> tuple[Reader, ...]:
        """Those that are there, the longest first."""
        return tuple(self._readers)

    @property
    def reach(self) -> int:
        """Up to where the file may be read now: its end waits until the digest is known to be right.

        It only grows, as long as the file is the same.
        """
        if self.verified:
            return self.length
        if self.remainder is not None:
            return self.remainder.reach
        return passable(self.length, self.size)

    @property
    def pace(self) -> float | None:
        """Bytes a second since the file was opened, or went on to be filled; None while there are none."""
        seconds, length = self._since
        grown = self.length - length
        elapsed = self._clock.seconds() - seconds
        return grown / elapsed if grown > 0 and elapsed > 0 else None

    def seconds_until(self, part: ContentRange) -> float:
        """See ``IGrowth``."""
        if self.verified or part.last < self.reach:
            return 0.0
        if self.size is None:
            return math.inf
        ends = part.last + 1 if part.last < self.size - HOLD else self.size
        return (ends - self.length) / self.pace if self.pace else math.inf

    def add(self, reader: Reader) -> None:
        """A reader comes."""
        self._readers[reader] = None

    def remove(self, reader: Reader) -> None:
        """A reader leaves; a second time changes nothing."""
        self._hungry.pop(reader, None)
        if reader in self._readers:
            del self._readers[reader]
            self._left()
            self._settle()

    def wait(self, reader: Reader) -> None:
        """The reader has read all that it may, and is to be told when there is more."""
        self._hungry[reader] = None

    def opened(self, file: FileReader, length: int) -> None:
        """This is the file from now on."""
        self._close()
        self.file = file
        self.length = length
        self.set_out()
        self._changed()

    def set_out(self) -> None:
        """The pace counts from here."""
        self._since = (self._clock.seconds(), self.length)

    def answer(self, size: int | None) -> None:
        """The upstream has told the size, or does not; readers who were told another are cut off."""
        if size is None and self.size is not None:
            return
        self.answered, self.size = True, size
        for reader in self.readers:
            if reader.entered and reader.size not in (None, size):
                reader.fail(Unavailable("the upstream tells another size than before"))
        self._changed()

    def grew(self, length: int) -> None:
        """The file has that length now."""
        self.length = length
        hungry, self._hungry = self._hungry, {}
        for reader in hungry:
            reader.changed()

    def verify(self) -> None:
        """All of it is there, and right."""
        self.answer(self.length)
        self.verified = True
        self._changed()

    def begin_anew(self, error: Exception) -> None:
        """The file was given up: what was read of it must not be completed from another."""
        self._close()
        self.length, self.verified = 0, False
        for reader in self.readers:
            if reader.given:
                reader.fail(error)

    def end(self, error: Exception | None = None, remainder: Remainder | None = None) -> None:
        """Nothing more is done here; without an error readers go on with what there is.

        :param remainder: how they go on behind it.
        """
        self._over = True
        self.remainder = remainder
        if error is not None:
            for reader in self.readers:
                reader.fail(error)
        self._changed()
        self._settle()

    def _changed(self) -> None:
        for reader in self.readers:
            reader.changed()

    def _settle(self) -> None:
        if self._over and not self._readers:
            self._close()

    def _close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None
