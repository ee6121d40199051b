"""A body that is copied while it is delivered."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from ..interfaces import IBody
from .consumers import ForwardingConsumer


@implementer(IBody)
class Tee:
    """A body whose copy is given to ``keep`` after the delivery, unless it is longer than ``limit``."""

    def __init__(self, body: IBody, limit: int, keep: Callable[[bytes], None]) -> None:
        self.descriptor = body.descriptor
        self._body = body
        self._limit = limit
        self._keep = keep

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        copier = _TeeConsumer(consumer, self._limit)
        return self._body.deliver(copier).addCallback(lambda _: self._complete(copier))

    def discard(self) -> None:
        self._body.discard()

    def _complete(self, copier: _TeeConsumer) -> None:
        if copier.room >= 0:
            self._keep(b"".join(copier.pieces))


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
