"""Filling a growing file from an upstream."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred

from ...content.verified import Corrupt
from ...interfaces import IContent
from ...oci.digest import Digest
from ...oci.errors import RegistryError, Unavailable, Unreachable
from ..reader import FileReader
from .arrival import Arrival, Reader
from .hashing import Hashing
from .intake import Intake, TooMuch
from .means import Means
from .offer import Doubtful, Offer, Rejected, Useless, offered, refuses_the_rest
from .partial import Partial
from .remainder import Remainder, passable
from .stop import Forsaken, Stop
from .told import Told


class Filling:
    """Goes on with a growing file of which the lock is held, until it is whole and verified.

    Each time the upstream is asked, it is with the source of a reader who is there.

    :param digest: of the blob.
    :param again: waits before another attempt, or fails with the error where there were enough.
    :param doubted: whether the blob was wrong before, when it had been fetched in parts.
    """

    def __init__(
        self,
        digest: Digest,
        arrival: Arrival,
        partial: Partial,
        file: FileReader,
        hashing: Hashing,
        stop: Stop,
        again: Callable[[RegistryError], Awaitable[None]],
        doubted: bool,
        means: Means,
    ) -> None:
        self._digest = digest
        self._arrival = arrival
        self._partial = partial
        self._hashing = hashing
        self._stop = stop
        self._again = again
        self._doubted = doubted
        self._means = means
        self._intake = Intake(arrival, partial, file, hashing, stop, means)
        self._told: Told | None = None
        self._reject: Callable[[Digest], None] | None = None  # of the address that has sent the last bytes
        self._reached = False  # whether the upstream has answered
        self._mixed = False  # whether the bytes are not all of one answer
        self._complete = False  # whether, as the upstream has it, all bytes are there

    async def fill(self) -> None:
        """Fires when the file is whole and verified.

        :raises Corrupt: when the upstream's bytes are not the blob; ``Rejected`` where the address that sent
            them remembers that.
        :raises Useless: when the blob is to be fetched from its start, into a new file.
        :raises Unreachable: when the upstream breaks off too often, or gives no answer from the first.
        :raises Forsaken: when no reader is left.
        :raises OSError: when the disk takes or gives nothing.
        """
        if self._arrival.length:
            await self._take_over()
        while not await self._is_whole():
            offer = await self._ask()
            if offer is not None:
                await self._receive(offer.content)

    @property
    def goes_on_alone(self) -> bool:
        """Whether it is worth finishing without a reader."""
        length, size = self._arrival.length, self._arrival.size
        if size is None or not self._intake.receiving:
            return False
        return 2 * length >= size or size - length < self._means.finish

    async def remainder(self) -> Remainder | None:
        """How readers can go on by themselves from here; None where it is not known what they have.

        :raises OSError: when the disk does not give what it has taken.
        """
        length, size = self._arrival.length, self._arrival.size
        if not self._arrival.answered:
            return None
        await self._hashing.catch_up(length)
        reach = passable(length, size)
        held = os.pread(self._partial.file, length - reach, reach)
        return Remainder(self._hashing.verifier(), length, held, size, self._means.clock)

    async def _take_over(self) -> None:
        """Hashes what an earlier fetch has left; readers are served with it meanwhile."""
        self._mixed = True
        length = self._arrival.length
        self._told = self._partial.told()
        if self._told is not None:
            if self._told.verified:  # which is not known here
                self._tell(self._told.size)
            self._arrival.answer(self._told.size)
        if self._arrival.size is not None and length > self._arrival.size:
            raise Useless(Unavailable("more was fetched than the blob has"))
        await self._hashing.catch_up(length, lambda: bool(self._arrival.readers))
        if self._hashing.hashed < length:
            raise Forsaken
        self._arrival.set_out()
        self._complete = length == self._arrival.size or await self._hashing.verified(length)

    async def _is_whole(self) -> bool:
        if not self._complete:
            return False
        length, size = self._arrival.length, self._arrival.size
        if size not in (None, length) or not await self._hashing.verified(length):
            raise self._wrong()
        return True

    def _wrong(self) -> Exception:
        if self._mixed and not self._doubted:
            return Doubtful(Unavailable("what was fetched in parts is not the blob"))
        message = "the upstream's content is not the blob of that digest"
        if self._reject is None:
            return Corrupt(message)
        self._reject(self._digest)
        return Rejected(message)

    async def _ask(self) -> Offer | None:
        """What the upstream offers; None when that reader was refused, or another attempt is due."""
        reader, offset = self._reader(), self._arrival.length
        try:
            answer = await self._stop.wait(lambda: Deferred.fromCoroutine(reader.source.open(offset)))
            offer = offered(answer, offset)
        except Unreachable as error:
            if not offset and not self._reached:
                raise
            await self._again(error)
            return None
        except RegistryError as error:
            if offset and _passes(error):
                await self._again(error)
                return None
            if offset and refuses_the_rest(error):
                raise Useless(error) from error
            reader.fail(error)
            return None
        self._reached = True
        reader.grant()
        self._accept(offer, offset)
        return offer

    def _reader(self) -> Reader:
        readers = self._arrival.readers
        if not readers:
            raise Forsaken
        return readers[0]

    def _accept(self, offer: Offer, offset: int) -> None:
        try:
            if offset and not self._goes_with(offer, offset):
                raise Useless(Unavailable("the upstream tells another size than before"))
            self._mixed, self._reject = offset > 0, offer.reject
            size = self._arrival.size if offer.size is None else offer.size
            if self._told is None or self._told.size != size:
                self._tell(size)
            self._arrival.answer(size)
            self._stop.check()  # a reader who was told may have left at once
        except BaseException:
            offer.content.discard()
            raise

    def _goes_with(self, offer: Offer, offset: int) -> bool:
        return offer.size is None or (offer.size >= offset and self._arrival.size in (None, offer.size))

    def _tell(self, size: int | None) -> None:
        self._partial.tell(size)
        self._told = Told(size)

    async def _receive(self, content: IContent) -> None:
        try:
            await self._intake.receive(content)
        except TooMuch:
            raise self._wrong() from None
        except Unreachable as error:
            if self._arrival.length != self._arrival.size:
                await self._again(error)
                return
        self._complete = True


def _passes(error: RegistryError) -> bool:
    """Whether the upstream, which has given the beginning, is only out of order or at its limit just now."""
    return (error.status >= 500 or error.status == 429) and not isinstance(error, Corrupt)
