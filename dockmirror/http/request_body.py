"""The body of a request as its resource takes it: while it comes, and at the resource's pace.

Nothing of it is read before somebody wants it, and nothing is kept: a body of any length costs what one read
of a socket does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer, IReactorTime
from twisted.web.http import _ChunkedTransferDecoder, _IdentityTransferDecoder, _MalformedChunkedDataError
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.descriptor import Descriptor
from ..oci.errors import RegistryError
from .head_parser import malformed
from .timer import Timer


@frozen
class MinimumRate:
    """How slow a client may be: so many bytes in so many seconds, while the mirror is ready to take them."""

    bytes: int
    seconds: float


@implementer(IBody, IPushProducer)
class RequestBody:
    """A body on its way in.

    :param length: None where it comes in chunks.
    :param begin: called when it is wanted, and again whenever more of it is; what has arrived is to be given
        to ``receive`` then.
    :param stop: called when no more of it is wanted just now.
    :ivar ended: whether its last byte has come.
    :ivar rest: what came behind it.
    """

    def __init__(
        self,
        length: int | None,
        media_type: str | None,
        pace: MinimumRate,
        clock: IReactorTime,
        begin: Callable[[], None],
        stop: Callable[[], None],
    ) -> None:
        self.descriptor = Descriptor(media_type, None, length)
        self.ended = False
        self.rest = b""
        self._pace = pace
        self._begin = begin
        self._stop = stop
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] = Deferred()
        self._paused = False
        self._in_window = 0
        self._window = Timer(clock)
        self._left: float = math.inf if length is None else length
        self._decoder = (
            _ChunkedTransferDecoder(self._piece, self._end)
            if length is None
            else _IdentityTransferDecoder(length, self._piece, self._end)
        )

    @property
    def wanted(self) -> bool:
        """Whether somebody takes it just now."""
        return self._consumer is not None and not self._paused

    @property
    def left(self) -> float:
        """How many bytes have not come yet; infinite where nobody can tell."""
        return 0 if self.ended else self._left

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``; fails with 408 where the client stops sending, with 400 where chunks are none."""
        self._done = Deferred(self._cancel)
        self._consumer = consumer
        consumer.registerProducer(self, True)
        self._watch()
        self._begin()
        return self._done

    def discard(self) -> None:
        """What is not taken is thrown away when the response begins."""

    def receive(self, data: bytes) -> None:
        """Some of it, as it stood on the connection."""
        self._in_window += len(data)
        try:
            self._decoder.dataReceived(data)
        except _MalformedChunkedDataError:
            self._left = math.inf
            self._fail(malformed("chunks"))

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = True
        self._window.clear()
        self._stop()

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        if self._consumer is not None and self._paused:
            self._paused = False
            self._watch()
            self._begin()

    def stopProducing(self) -> None:
        """See ``IPushProducer``."""
        self._fail(RegistryError("nobody takes the request's body any more"))

    def _piece(self, data: bytes) -> None:
        self._left -= len(data)
        if self._consumer is not None and data:
            self._consumer.write(data)

    def _end(self, rest: bytes) -> None:
        self.ended, self.rest = True, rest
        if self._release():
            self._done.callback(None)

    def _fail(self, error: RegistryError) -> None:
        if self._release():
            self._done.errback(error)

    def _cancel(self, _: Deferred[None]) -> None:
        self._release()

    def _release(self) -> bool:
        """Whether somebody was taking it, who has it no more."""
        self._window.clear()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.unregisterProducer()
        return consumer is not None

    def _watch(self) -> None:
        self._in_window = 0
        self._window.set(self._pace.seconds, self._look)

    def _look(self) -> None:
        if self._in_window < self._pace.bytes:
            self._fail(RegistryError("the request's body did not arrive in time", status=408))
        else:
            self._watch()
