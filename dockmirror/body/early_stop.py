"""A content that is left before its end, because its consumer has had enough."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer

from ..interfaces import IBody
from .forwarding import ForwardingConsumer


class EarlyStopConsumer(ForwardingConsumer):
    """Passes a content on, as far as it is wanted.

    :ivar has_enough: whether nothing more is wanted.
    """

    def __init__(self, consumer: IConsumer) -> None:
        super().__init__(consumer)
        self.has_enough = False
        self._delivery: Deferred[None] | None = None

    def forward(self, content: IBody) -> Deferred[None]:
        """Has it delivered here; fails with ``CancelledError`` where it was left in the middle."""
        self._delivery = content.deliver(self)
        self._leave()
        return self._delivery

    def forward_piece(self, data: bytes) -> None:
        """What is done with a piece, as long as more is wanted."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """See ``IConsumer``.

        What writes within a coroutine is not left by being cancelled meanwhile: it goes on to where it waits,
        and is left when it writes again.
        """
        if not self.has_enough:
            self.forward_piece(data)
        self._leave()

    def _leave(self) -> None:
        if self.has_enough and self._delivery is not None:
            self._delivery.cancel()
