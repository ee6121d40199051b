"""Bodies: held in memory, and wrappers of others that limit, slice, copy, resume, observe and verify."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from attrs import evolve, field, frozen
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IConsumer, IProducer, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.digest import Descriptor, Digest, Verifier
from ..oci.errors import Unavailable, Unreachable
from .consumers import EarlyStopConsumer, ForwardingConsumer, SequentialConsumer

PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each further attempt."""
TAIL_HOLDBACK = 64 * 1024
"""Bytes at the end that are withheld until the digest matches."""
_log = Logger()


@implementer(IBody)
class SizeLimitedBody:
    """A body that fails at the first piece that exceeds the limit; that piece is not passed on."""

    def __init__(self, body: IBody, limit: int) -> None:
        self.descriptor = body.descriptor
        self._body = body
        self._limit = limit

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """:raises Unavailable: when the body exceeds the limit."""
        counter = _LimitConsumer(consumer, self._limit)
        return counter.forward(self._body).addCallbacks(counter.check_size, counter.translate_failure)

    def discard(self) -> None:
        self._body.discard()


def too_large(limit: int) -> Unavailable:
    """Return the error for a body that exceeds the limit."""
    return Unavailable(f"the upstream's answer is larger than {limit} bytes")


class _LimitConsumer(EarlyStopConsumer):
    def __init__(self, consumer: IConsumer, limit: int) -> None:
        super().__init__(consumer)
        self._limit = self._left = limit

    def forward_piece(self, data: bytes) -> None:
        self._left -= len(data)
        self.satisfied = self._left < 0
        if not self.satisfied:
            self.consumer.write(data)

    def check_size(self, _: None) -> None:
        if self.satisfied:
            raise too_large(self._limit)

    def translate_failure(self, failure: Failure) -> Failure:
        if failure.check(CancelledError):
            self.check_size(None)
        return failure


@implementer(IBody)
class Slice:
    """``length`` bytes of a body from offset ``first`` on; all the rest if no length is given."""

    def __init__(self, body: IBody, first: int, length: int | None = None) -> None:
        self.descriptor = evolve(body.descriptor, digest=None, size=length)
        self._body = body
        self._first = first
        self._length = length

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Deliver the part, and cancel the delivery after the part, unless the body ends there.

        :raises Unreachable: when the body ends before the part does.
        """
        ends = self._length is not None and self._body.descriptor.size == self._first + self._length
        slicer = _SliceConsumer(consumer, self._first, self._length, ends)
        return slicer.forward(self._body).addCallbacks(slicer.check_end, slicer.ignore_late_failure)

    def discard(self) -> None:
        self._body.discard()


class _SliceConsumer(EarlyStopConsumer):
    """Passes the part on.

    :param ends: True if the body is expected to end with the part, so that it need not be cancelled.
    """

    def __init__(self, consumer: IConsumer, skip: int, length: int | None, ends: bool) -> None:
        super().__init__(consumer)
        self._skip = skip
        self._left = length
        self._ends = ends

    def forward_piece(self, data: bytes) -> None:
        piece = data[self._skip :]
        self._skip -= min(self._skip, len(data))
        wanted = piece[: self._left]
        if self._left is not None:
            self._left -= len(wanted)
            self.satisfied = self._left == 0 and not (self._ends and piece == wanted)
        if wanted:
            self.consumer.write(wanted)

    def check_end(self, _: None) -> None:
        """Check that the body did not end before the part."""
        if not self.satisfied and (self._left or self._skip):
            raise Unreachable("the upstream sent less than it had announced")

    def ignore_late_failure(self, failure: Failure) -> None:
        """Ignore a failure after the part has passed: above all the own cancellation."""
        failure.trap(CancelledError, Unreachable)
        if self._left != 0:
            failure.raiseException()


@implementer(IBody)
class Tee:
    """A body whose copy is given to ``on_copy`` after the delivery, unless it is longer than ``limit``."""

    def __init__(self, body: IBody, limit: int, on_copy: Callable[[bytes], None]) -> None:
        self.descriptor = body.descriptor
        self._body = body
        self._limit = limit
        self._on_copy = on_copy

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        copier = _TeeConsumer(consumer, self._limit)
        return self._body.deliver(copier).addCallback(lambda _: self._complete(copier))

    def discard(self) -> None:
        self._body.discard()

    def _complete(self, copier: _TeeConsumer) -> None:
        if copier.remaining >= 0:
            self._on_copy(b"".join(copier.pieces))


class _TeeConsumer(ForwardingConsumer):
    def __init__(self, consumer: IConsumer, limit: int) -> None:
        super().__init__(consumer)
        self.remaining = limit
        self.pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.remaining -= len(data)
        if self.remaining >= 0:
            self.pieces.append(data)
        else:
            self.pieces.clear()
        super().write(data)


@implementer(IBody)
class ResumingBody:
    """A body whose rest is fetched when it breaks off.

    :param reopen: opens the body from an offset on, or fails with a ``RegistryError``.
    """

    def __init__(self, body: IBody, reopen: Callable[[int], Awaitable[IBody]], clock: IReactorTime) -> None:
        self.descriptor = body.descriptor
        self._body = body
        self._reopen = reopen
        self._clock = clock

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        return Deferred.fromCoroutine(self._deliver(SequentialConsumer(consumer)))

    def discard(self) -> None:
        self._body.discard()

    async def _deliver(self, to: SequentialConsumer) -> None:
        body: IBody | None = self._body
        pauses = iter(PAUSES)
        try:
            while True:
                try:
                    if body is None:
                        body = await self._reopen(to.count)
                    return await body.deliver(to)
                except Unreachable:
                    pause, body = next(pauses, None), None
                    if pause is None or to.stopped:
                        raise
                    await deferLater(self._clock, pause)
                    if to.stopped:
                        raise
        finally:
            to.finish()


@implementer(IBody)
class CompletionObserver:
    """Runs ``on_complete`` after the last byte, without waiting for it; its failure is only logged."""

    def __init__(self, body: IBody, on_complete: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.descriptor = body.descriptor
        self._body = body
        self._on_complete = on_complete

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        return self._body.deliver(consumer).addCallback(self._complete)

    def discard(self) -> None:
        self._body.discard()

    def _complete(self, _: None) -> None:
        Deferred.fromCoroutine(self._on_complete()).addErrback(_log_failure)


def _log_failure(failure: Failure) -> None:
    _log.failure("the action after a delivery failed", failure=failure)


class CorruptContent(Unavailable):
    """The upstream's bytes are not the content that was asked for."""


def releasable_length(length: int, size: int | None) -> int:
    """Return how many of the received bytes may be passed on before all are verified."""
    return max(0, length - TAIL_HOLDBACK if size is None else min(length, size - TAIL_HOLDBACK))


@implementer(IBody)
class VerifiedBody:
    """A complete body whose tail is withheld until its digest and its size match.

    A body no longer than the tail reaches the consumer only if it is right.
    """

    def __init__(self, body: IBody, digest: Digest) -> None:
        size = body.descriptor.size
        self.descriptor = Descriptor(body.descriptor.media_type, digest, size)
        self._body = body
        self._digest = digest

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """:raises CorruptContent: when the bytes do not match the digest."""
        holdback = TailHoldback(consumer, self._digest.verifier(), self.descriptor.size)
        return self._body.deliver(holdback).addCallback(lambda _: holdback.release_tail())

    def discard(self) -> None:
        self._body.discard()


class TailHoldback(ForwardingConsumer):
    """Passes a body on except for its tail, which is withheld until all of it is verified.

    :param verifier: was given the bytes that came before.
    :param received: number of the bytes that came before.
    :param tail: the last of them, which were not passed on.
    """

    def __init__(
        self, consumer: IConsumer, verifier: Verifier, size: int | None, received: int = 0, tail: bytes = b""
    ) -> None:
        super().__init__(consumer)
        self._verifier = verifier
        self._size = size
        self._received = received
        self._released = received - len(tail)
        self._tail = deque([tail] if tail else [])

    def write(self, data: bytes) -> None:
        self._verifier.update(data)
        self._received += len(data)
        if self._size is None or self._received <= self._size:  # else it is corrupt already
            self._tail.append(data)
        self._release(releasable_length(self._received, self._size))

    def release_tail(self) -> None:
        """Pass the tail on.

        :raises CorruptContent: when the bytes do not match the digest.
        """
        if self._size not in (None, self._received) or not self._verifier.matches():
            raise CorruptContent(f"the upstream's content is not {self._verifier.digest}")
        self._release(self._received)

    def _release(self, end: int) -> None:
        while self._tail and self._released + len(self._tail[0]) <= end:
            piece = self._tail.popleft()
            self._released += len(piece)
            self.consumer.write(piece)


@implementer(IBody)
class ErrorPageGuardBody:
    """Like ``VerifiedBody``, but a mismatch means "unavailable" (say, an error page), not "corrupt".

    So the content may be fetched again at once.

    :param reason: the text of the error at a mismatch.
    """

    def __init__(self, body: IBody, digest: Digest, reason: str) -> None:
        self.descriptor = body.descriptor
        self._body = VerifiedBody(body, digest)
        self._reason = reason

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """:raises Unavailable: when the bytes do not match the digest."""
        return self._body.deliver(consumer).addErrback(self._translate_mismatch)

    def discard(self) -> None:
        self._body.discard()

    def _translate_mismatch(self, failure: Failure) -> None:
        failure.trap(CorruptContent)
        raise Unavailable(self._reason)


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
