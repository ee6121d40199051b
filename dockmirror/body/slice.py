"""A part cut out of a whole that an upstream sends although a part was asked for."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.errors import Unreachable
from .early_stop import EarlyStopConsumer


@implementer(IBody)
class Slice:
    """``length`` bytes of a content from ``first`` on; to the end where no length is given."""

    def __init__(self, content: IBody, first: int, length: int | None = None) -> None:
        self.descriptor = evolve(content.descriptor, digest=None, size=length)
        self._content = content
        self._first = first
        self._length = length

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``; the whole is left as soon as the part has passed, unless it ends there.

        :raises Unreachable: when the whole ends before the part does.
        """
        ends = self._length is not None and self._content.descriptor.size == self._first + self._length
        cutting = _SliceConsumer(consumer, self._first, self._length, ends)
        return cutting.forward(self._content).addCallbacks(cutting.ended, cutting.broken)

    def discard(self) -> None:
        """See ``IBody``."""
        self._content.discard()


class _SliceConsumer(EarlyStopConsumer):
    """Passes the part on.

    :param ends: whether the whole is expected to end with it, so that nothing has to be left.
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
            self.has_enough = self._left == 0 and not (self._ends and piece == wanted)
        if wanted:
            self.consumer.write(wanted)

    def ended(self, _: None) -> None:
        """The end of the whole, which must not come before the part's."""
        if not self.has_enough and (self._left or self._skip):
            raise Unreachable("the upstream sent less than it had told")

    def broken(self, failure: Failure) -> None:
        """What ends a whole whose part has passed, our own cancellation first of all, is no failure."""
        failure.trap(CancelledError, Unreachable)
        if self._left != 0:
            failure.raiseException()
