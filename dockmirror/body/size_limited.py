"""A body with a limit on its size."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.errors import Unavailable
from .consumers import EarlyStopConsumer


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
        return counter.forward(self._body).addCallbacks(counter.ended, counter.broken)

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

    def ended(self, _: None) -> None:
        if self.satisfied:
            raise too_large(self._limit)

    def broken(self, failure: Failure) -> Failure:
        if failure.check(CancelledError):
            self.ended(None)
        return failure
