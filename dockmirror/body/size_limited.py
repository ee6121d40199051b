"""Contents that have an end, although their length is not told."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.errors import Unavailable
from .early_stop import EarlyStopConsumer


@implementer(IBody)
class SizeLimitedBody:
    """A content that is left as soon as more than ``most`` bytes come; not one of these is passed on."""

    def __init__(self, content: IBody, most: int) -> None:
        self.descriptor = content.descriptor
        self._content = content
        self._most = most

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``.

        :raises Unavailable: when there are more bytes.
        """
        counting = _LimitConsumer(consumer, self._most)
        return counting.forward(self._content).addCallbacks(counting.ended, counting.broken)

    def discard(self) -> None:
        """See ``IBody``."""
        self._content.discard()


def too_large(most: int) -> Unavailable:
    """What is said of a content that has more bytes."""
    return Unavailable(f"the upstream's answer is larger than {most} bytes")


class _LimitConsumer(EarlyStopConsumer):
    def __init__(self, consumer: IConsumer, most: int) -> None:
        super().__init__(consumer)
        self._most = self._left = most

    def forward_piece(self, data: bytes) -> None:
        self._left -= len(data)
        self.has_enough = self._left < 0
        if not self.has_enough:
            self.consumer.write(data)

    def ended(self, _: None) -> None:
        if self.has_enough:
            raise too_large(self._most)

    def broken(self, failure: Failure) -> Failure:
        if failure.check(CancelledError):
            self.ended(None)
        return failure
