"""A part cut out of a body, where the upstream ignores ``Range`` and sends all of it."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.errors import Unreachable
from .consumers import EarlyStopConsumer


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
        return slicer.forward(self._body).addCallbacks(slicer.ended, slicer.broken)

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

    def ended(self, _: None) -> None:
        """Check that the body did not end before the part."""
        if not self.satisfied and (self._left or self._skip):
            raise Unreachable("the upstream sent less than it had announced")

    def broken(self, failure: Failure) -> None:
        """Ignore a failure after the part has passed: above all our own cancellation."""
        failure.trap(CancelledError, Unreachable)
        if self._left != 0:
            failure.raiseException()
