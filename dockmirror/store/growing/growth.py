"""A blob on its way in, as one reader has it: up to where it may be read, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IReactorTime
from zope.interface import implementer

from ...interfaces import IContent, IGrowth, ISource
from ...oci.consent import SAMPLED, Sample, sampled_part
from ...oci.descriptor import Descriptor
from ...oci.errors import RegistryError, Unavailable
from ...oci.ranges import ContentRange
from ...oci.reference import Repository
from ..reader import FileReader
from .arrival import Arrival
from .delivery import Delivery


@implementer(IGrowth)
class Growth:
    """One reader's place.

    :ivar entered: whether the reader was let in, and told the size.
    :ivar granted: whether the upstream has said that this reader may have the blob.
    :ivar given: whether bytes of the file have gone to the reader.
    :ivar failure: why nothing more will come.
    :ivar on_change: is called when there is more to be read, or something else has become of it.
    :param joined: whether somebody else's fetch was there already.
    """

    def __init__(
        self, arrival: Arrival, repository: Repository, source: ISource, joined: bool, clock: IReactorTime
    ) -> None:
        self.size: int | None = None
        self.joined = joined
        self.source = source
        self.repository = repository
        self.entered = self.granted = self.given = False
        self.failure: Exception | None = None
        self.on_change: Callable[[], None] = _nothing
        self._arrival = arrival
        self._clock = clock
        self._part: ContentRange | None = None

    async def answered(self) -> None:
        """Fires when it is known what the upstream says of the size.

        :raises Exception: why it will not be.
        """
        while not self._arrival.answered and self.failure is None:
            change: Deferred[None] = Deferred()
            self.on_change = partial(_fire, change)
            try:
                await change
            finally:
                self.on_change = _nothing
        self.check()

    async def sample(self) -> Sample | None:
        """See ``Held``; waits until there is enough to choose from, or the reader leaves.

        :raises Exception: why there will not be enough.
        """
        size = self._arrival.size
        while size and (self.file is None or self._arrival.length < min(size, SAMPLED)):
            self.check()
            if self not in self._arrival.readers:
                return None
            change: Deferred[None] = Deferred()
            self.on_change = partial(_fire, change)
            self._arrival.wait(self)
            try:
                await change
            finally:
                self.on_change = _nothing
        if not size or self.file is None:
            return None
        part = sampled_part(size)
        try:
            return Sample(part, await self.file.read(part.first, part.length))
        except OSError:
            return None

    def check(self) -> None:
        """:raises Exception: why nothing more will come, where that is so."""
        if self.failure is not None:
            raise self.failure

    def grant(self) -> None:
        """The upstream has said that this reader may have the blob, and the repository has it."""
        self.granted = True
        self._arrival.repositories.add(self.repository)

    def enter(self) -> None:
        """The reader is let in."""
        self.size, self.entered = self._arrival.size, True

    def content(self, descriptor: Descriptor, part: ContentRange | None) -> IContent:
        """See ``IGrowth``."""
        self._part = part
        return GrowingContent(self, descriptor, self._clock)

    def seconds_until(self, part: ContentRange) -> float:
        """See ``IGrowth``."""
        return self._arrival.seconds_until(part)

    def leave(self) -> None:
        """See ``IGrowth``; a second time changes nothing."""
        self._arrival.remove(self)
        if not self.entered:
            self.changed()

    def changed(self) -> None:
        """See ``Reader``."""
        self.on_change()

    def fail(self, error: Exception) -> None:
        """See ``Reader``; the first failure counts.

        One who was let in is delivered to, which fails with nothing but the registry's errors.
        """
        if self.failure is None:
            self.failure = error
            if self.entered and not isinstance(error, RegistryError):
                self.failure = Unavailable("the store gives no more of it")
                self.failure.__cause__ = error
            self.changed()
            self.leave()

    @property
    def file(self) -> FileReader | None:
        """What is read from; None where there is nothing just now, and another one after that."""
        return self._arrival.file

    @property
    def first(self) -> int:
        """Where this reader begins."""
        return self._part.first if self._part else 0

    @property
    def end(self) -> int | None:
        """Where this reader ends; None where that is not known yet, or not yet known to be right."""
        if self._part is not None:
            return self._part.last + 1
        return self._arrival.length if self._arrival.verified else None

    @property
    def reach(self) -> int:
        """Up to where this reader may read the file now."""
        end = self.end
        return self._arrival.reach if end is None else min(end, self._arrival.reach)

    @property
    def over(self) -> bool:
        """Whether readers go on by themselves behind the reach."""
        return self._arrival.remainder is not None

    def wait(self) -> None:
        """See ``Reach``."""
        self._arrival.wait(self)

    def rest(self, position: int) -> IContent | None:
        """How to go on by oneself from where the file ends for this reader, on a disk that was full."""
        remainder = self._arrival.remainder
        if remainder is None or position < self.reach or position == self.end:
            return None
        to_the_end = self.end in (None, self._arrival.size)
        return remainder.content(self.source, position, None if to_the_end else self.end)


@implementer(IContent)
class GrowingContent:
    """What one reader has of a blob on its way in."""

    def __init__(self, growth: Growth, descriptor: Descriptor, clock: IReactorTime) -> None:
        self.descriptor = descriptor
        self._growth = growth
        self._clock = clock

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IContent``."""
        moved = Delivery(self._growth, consumer, self._clock).begin()
        return moved.addCallback(self._go_on, consumer).addBoth(self._left)

    def discard(self) -> None:
        """See ``IContent``."""
        self._growth.leave()

    def _go_on(self, position: int, consumer: IConsumer) -> Deferred[None]:
        rest = self._growth.rest(position)
        self._growth.leave()  # so that the file can be closed, and the full disk has its bytes back
        return succeed(None) if rest is None else rest.deliver(consumer)

    def _left(self, outcome: object) -> object:
        self._growth.leave()
        return outcome


def _nothing() -> None:
    """What is done when nobody waits."""


def _fire(change: Deferred[None]) -> None:
    if not change.called:
        change.callback(None)
