"""Bodies held in memory, and reading a body into memory."""

from __future__ import annotations

from attrs import field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.digest import Descriptor
from ..oci.errors import Unavailable
from .wrappers import SizeLimitedBody, too_large


@implementer(IBody)
@frozen
class BytesBody:
    """A body of bytes in memory, written at once."""

    data: bytes = field(repr=False)
    descriptor: Descriptor

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self.data)
        return succeed(None)

    def discard(self) -> None:
        pass


def json_body(data: bytes) -> BytesBody:
    return BytesBody(data, Descriptor("application/json", None, len(data)))


def NoBody(descriptor: Descriptor) -> BytesBody:
    """Return an empty body with the descriptor of the one that a HEAD or a 304 describes."""
    return BytesBody(b"", descriptor)


async def collect(body: IBody, limit: int) -> bytes:
    """Read a body into memory.

    :raises Unavailable: when it has more than ``limit`` bytes; the rest is not read.
    """
    if body.descriptor.size is not None and body.descriptor.size > limit:
        body.discard()
        raise too_large(limit)
    if isinstance(body, BytesBody) and len(body.data) <= limit:
        return body.data
    collector = _Collector()
    await SizeLimitedBody(body, limit).deliver(collector)
    return b"".join(collector.pieces)


@implementer(IConsumer)
class _Collector:
    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.pieces.append(data)


PIECE = 64 * 1024
"""Bytes of one write."""


@implementer(IBody, IPushProducer)
class PacedBytes:
    """A body of bytes in memory, of which no more is written than the consumer takes.

    The delivery ends when the consumer would take more, so that a body which follows need not wait.
    """

    def __init__(self, data: bytes) -> None:
        self.descriptor = Descriptor(size=len(data))
        self._data = data
        self._position = 0
        self._paused = False
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] = Deferred(lambda _: self._unregister())

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        self._consumer = consumer
        consumer.registerProducer(self, True)
        self._write()
        return self._done

    def discard(self) -> None:
        pass

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._write()

    def stopProducing(self) -> None:
        self._finish(Failure(Unavailable("the consumer has gone")))

    def _write(self) -> None:
        while self._consumer is not None and not self._paused:
            if self._position >= len(self._data):
                self._finish(None)
                return
            first, self._position = self._position, self._position + PIECE
            self._consumer.write(self._data[first : self._position])

    def _finish(self, outcome: Failure | None) -> None:
        if self._consumer is not None:
            self._unregister()
            self._done.callback(outcome)

    def _unregister(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.unregisterProducer()
