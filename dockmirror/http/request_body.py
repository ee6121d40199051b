"""A request's body, streamed to its resource."""

from __future__ import annotations

import math
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer, IReactorTime
from twisted.web.http import _ChunkedTransferDecoder, _IdentityTransferDecoder, _MalformedChunkedDataError
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.digest import Descriptor
from ..oci.errors import RegistryError
from .limits import MinimumRate, Timer
from .request_head import malformed_request


@implementer(IBody, IPushProducer)
class RequestBody:
    """A body that is read from the client at the pace of its consumer.

    Nothing is read before a consumer registers, and nothing is kept: a body of any length costs as much
    memory as one read of a socket.

    :param length: None for a chunked body.
    :param on_wanted: called each time the consumer is ready; the channel then passes input to ``receive``.
    :param on_paused: called each time the consumer pauses.
    :ivar is_complete: True if the last byte has arrived.
    :ivar trailing_data: the input behind the body.
    """

    def __init__(
        self,
        length: int | None,
        media_type: str | None,
        min_rate: MinimumRate,
        clock: IReactorTime,
        on_wanted: Callable[[], None],
        on_paused: Callable[[], None],
    ) -> None:
        self.descriptor = Descriptor(media_type, None, length)
        self.is_complete = False
        self.trailing_data = b""
        self._min_rate = min_rate
        self._on_wanted = on_wanted
        self._on_paused = on_paused
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] = Deferred()
        self._paused = False
        self._window_bytes = 0
        self._window_timer = Timer(clock)
        self._remaining: float = math.inf if length is None else length
        self._decoder = (
            _ChunkedTransferDecoder(self._write, self._complete)
            if length is None
            else _IdentityTransferDecoder(length, self._write, self._complete)
        )

    @property
    def is_wanted(self) -> bool:
        """Tell whether a consumer is ready for more."""
        return self._consumer is not None and not self._paused

    @property
    def remaining(self) -> float:
        """Return how many bytes have not arrived; infinite if unknown."""
        return 0 if self.is_complete else self._remaining

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Deliver the body; fail with 408 if the client stops sending, with 400 if its chunks are
        malformed.
        """
        self._done = Deferred(self._cancel)
        self._consumer = consumer
        consumer.registerProducer(self, True)
        self._start_window()
        self._on_wanted()
        return self._done

    def discard(self) -> None:
        """Do nothing: the channel discards the body when the response begins."""

    def receive(self, data: bytes) -> None:
        """Accept a piece of the body as it stood on the connection."""
        self._window_bytes += len(data)
        try:
            self._decoder.dataReceived(data)
        except _MalformedChunkedDataError:
            self._remaining = math.inf
            self._fail(malformed_request("chunks"))

    def pauseProducing(self) -> None:
        self._paused = True
        self._window_timer.clear()
        self._on_paused()

    def resumeProducing(self) -> None:
        if self._consumer is not None and self._paused:
            self._paused = False
            self._start_window()
            self._on_wanted()

    def stopProducing(self) -> None:
        self._fail(RegistryError("the request's body is no longer needed"))

    def _write(self, data: bytes) -> None:
        self._remaining -= len(data)
        if self._consumer is not None and data:
            self._consumer.write(data)

    def _complete(self, trailing_data: bytes) -> None:
        self.is_complete, self.trailing_data = True, trailing_data
        if self._detach_consumer():
            self._done.callback(None)

    def _fail(self, error: RegistryError) -> None:
        if self._detach_consumer():
            self._done.errback(error)

    def _cancel(self, _: Deferred[None]) -> None:
        self._detach_consumer()

    def _detach_consumer(self) -> bool:
        """Unregister from the consumer; return whether there was one."""
        self._window_timer.clear()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.unregisterProducer()
        return consumer is not None

    def _start_window(self) -> None:
        self._window_bytes = 0
        self._window_timer.set(self._min_rate.seconds, self._check_rate)

    def _check_rate(self) -> None:
        if self._window_bytes < self._min_rate.bytes:
            self._fail(RegistryError("the request's body did not arrive in time", status=408))
        else:
            self._start_window()
