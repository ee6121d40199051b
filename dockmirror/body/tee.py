"""A content that is kept while it passes."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from ..interfaces import IBody
from .forwarding import ForwardingConsumer


@implementer(IBody)
class Tee:
    """Passes a content on; a copy of one no longer than ``limit`` goes to ``keep`` when it was complete."""

    def __init__(self, content: IBody, limit: int, keep: Callable[[bytes], None]) -> None:
        self.descriptor = content.descriptor
        self._content = content
        self._limit = limit
        self._keep = keep

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``."""
        copying = _TeeConsumer(consumer, self._limit)
        return self._content.deliver(copying).addCallback(lambda _: self._complete(copying))

    def discard(self) -> None:
        """See ``IBody``."""
        self._content.discard()

    def _complete(self, copying: _TeeConsumer) -> None:
        if copying.room >= 0:
            self._keep(b"".join(copying.pieces))


class _TeeConsumer(ForwardingConsumer):
    def __init__(self, consumer: IConsumer, room: int) -> None:
        super().__init__(consumer)
        self.room = room
        self.pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.room -= len(data)
        if self.room >= 0:
            self.pieces.append(data)
        else:
            self.pieces.clear()
        super().write(data)
