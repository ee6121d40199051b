"""A part of a content that is fetched before its turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.descriptor import Descriptor
from ..oci.errors import RegistryError, Unreachable
from .in_memory import BytesBody
from .producer_switch import ProducerSwitch
from .resuming import ResumingBody

OpenRange = Callable[[int, int], Awaitable[IBody]]
"""Opens the part from one offset to another, inclusive, or fails with a ``RegistryError``."""


@implementer(IConsumer, IPushProducer)
class Segment:
    """Keeps what comes until its turn, then passes it on; goes on by itself where it breaks off.

    Until its turn nothing makes it wait: it holds no more than its part, and is done with its
    connection the sooner.

    :ivar given: whether the upstream has begun to give it.
    :ivar error: why it was given up before its turn.
    """

    def __init__(self, first: int, last: int, open_range: OpenRange, clock: IReactorTime) -> None:
        self.first = first
        self.given = False
        self.error: RegistryError | None = None
        self._last = last
        self._open_range = open_range
        self._clock = clock
        self._next = first
        self._kept: deque[bytes] = deque()
        self._fetching: Deferred[None] = succeed(None)
        self._told: Callable[[Segment], None] = _nobody
        self._pace = ProducerSwitch()
        self._consumer: IConsumer | None = None
        self._passed: Deferred[None] | None = None

    def begin(self, told: Callable[[Segment], None]) -> None:
        """Sets out.

        :param told: is called when it is given, and when it is given up.
        """
        self._told = told
        self._fetching = Deferred.fromCoroutine(self._fetch()).addErrback(self._give_up)

    async def pass_on(self, consumer: IConsumer) -> None:
        """It is its turn: fires when the whole part was written; what was given up is asked for once more.

        :raises RegistryError: when it cannot be had.
        """
        self._consumer = consumer
        consumer.registerProducer(self, True)
        try:
            self._go_on()
            await self._fetching
            if self.error is not None and not self._pace.stopped:
                self.error = None
                await self._fetch()
            await self._all_passed()
        finally:
            self._consumer = None
            consumer.unregisterProducer()
        if self._pace.stopped:
            raise Unreachable("nobody takes the content any more")

    def leave(self) -> None:
        """It is not wanted any more."""
        self._kept.clear()
        self._fetching.addErrback(lambda _: None)
        self._fetching.cancel()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``."""
        self._pace.begin(producer)

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._pace.end()

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        self._next += len(data)
        self._kept.append(data)
        self._go_on()

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._pace.pauseProducing()

    def resumeProducing(self) -> None:
        """See ``IPushProducer``; what is kept goes first."""
        self._pace.paused = False
        self._go_on()
        if not self._pace.paused:
            self._pace.resumeProducing()

    def stopProducing(self) -> None:
        """See ``IPushProducer``."""
        self._kept.clear()
        self._pace.stopProducing()
        self._go_on()

    async def _fetch(self) -> None:
        offset = self._next
        content = await self._open(offset)
        if not self.given:
            self.given = True
            self._told(self)
        await ResumingBody(content, lambda count: self._open(offset + count), self._clock).deliver(self)

    async def _open(self, offset: int) -> IBody:
        if offset > self._last:  # it broke off after the last byte
            return BytesBody(b"", Descriptor())
        return await self._open_range(offset, self._last)

    def _give_up(self, failure: Failure) -> None:
        failure.trap(RegistryError)
        assert isinstance(failure.value, RegistryError)
        self.error = failure.value
        self._told(self)

    def _go_on(self) -> None:
        while self._kept and self._consumer is not None and not self._pace.paused:
            self._consumer.write(self._kept.popleft())
        if not self._kept and self._passed is not None:
            passed, self._passed = self._passed, None
            passed.callback(None)

    def _all_passed(self) -> Deferred[None]:
        if not self._kept:
            return succeed(None)
        self._passed = Deferred(self._forget)
        return self._passed

    def _forget(self, _: Deferred[None]) -> None:
        self._passed = None


def _nobody(_: Segment) -> None:
    """It has not set out."""
