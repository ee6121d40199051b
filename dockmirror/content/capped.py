"""Contents that have an end, although their length is not told."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import IContent
from ..oci.errors import Unavailable
from .onward import Onward


@implementer(IContent)
class Capped:
    """A content that is left as soon as more than ``most`` bytes come; not one of these is passed on."""

    def __init__(self, content: IContent, most: int) -> None:
        self.descriptor = content.descriptor
        self._content = content
        self._most = most

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IContent``.

        :raises Unavailable: when there are more bytes.
        """
        counting = _Counting(consumer, self._most)
        delivery = self._content.deliver(counting)
        counting.leave = delivery.cancel
        if counting.left < 0:
            delivery.cancel()
        return delivery.addCallbacks(counting.ended, counting.broken)

    def discard(self) -> None:
        """See ``IContent``."""
        self._content.discard()


class _Counting(Onward):
    def __init__(self, consumer: IConsumer, most: int) -> None:
        super().__init__(consumer)
        self.leave: Callable[[], None] | None = None
        self.left = most
        self._most = most

    def write(self, data: bytes) -> None:
        if self.left < 0:
            return
        self.left -= len(data)
        if self.left >= 0:
            self.consumer.write(data)
        elif self.leave is not None:
            self.leave()

    def ended(self, _: None) -> None:
        if self.left < 0:
            raise Unavailable(f"the upstream sent more than {self._most} bytes without telling how many")

    def broken(self, failure: Failure) -> Failure:
        if failure.check(CancelledError):
            self.ended(None)
        return failure
