"""Contents that are right, or are not completed."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest, Verifier
from ..oci.errors import Unavailable
from .forwarding import ForwardingConsumer

TAIL_HOLDBACK = 64 * 1024
"""How many of the last bytes wait until the digest is known to be right."""


class CorruptContent(Unavailable):
    """The upstream's bytes are not the content that was asked for."""


def releasable_length(length: int, size: int | None) -> int:
    """Return how many of the bytes that have come may be given away before all are verified."""
    return max(0, length - TAIL_HOLDBACK if size is None else min(length, size - TAIL_HOLDBACK))


@implementer(IBody)
class VerifiedBody:
    """A whole content whose end is held back until its digest and its size have proven right.

    A content no longer than what is held back reaches the consumer only if it is right.
    """

    def __init__(self, content: IBody, digest: Digest) -> None:
        size = content.descriptor.size
        self.descriptor = Descriptor(content.descriptor.media_type, digest, size)
        self._content = content
        self._digest = digest

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``.

        :raises Corrupt: when the bytes are not those of the digest.
        """
        holdback = TailHoldback(consumer, self._digest.verifier(), self.descriptor.size)
        return self._content.deliver(holdback).addCallback(lambda _: holdback.complete())

    def discard(self) -> None:
        """See ``IBody``."""
        self._content.discard()


class TailHoldback(ForwardingConsumer):
    """Passes a content on, except for its end, which waits until all of it is known to be right.

    :param verifier: was given the bytes that came before.
    :param received: how many those are.
    :param held: the last of them, which were not passed on.
    """

    def __init__(
        self, consumer: IConsumer, verifier: Verifier, size: int | None, received: int = 0, held: bytes = b""
    ) -> None:
        super().__init__(consumer)
        self._verifier = verifier
        self._size = size
        self._received = received
        self._passed = received - len(held)
        self._held = deque([held] if held else [])

    def write(self, data: bytes) -> None:
        """See ``IConsumer``."""
        self._verifier.update(data)
        self._received += len(data)
        if self._size is None or self._received <= self._size:  # else it is wrong already
            self._held.append(data)
        self._pass_on(releasable_length(self._received, self._size))

    def complete(self) -> None:
        """Pass the end on.

        :raises Corrupt: when the content is wrong.
        """
        if self._size not in (None, self._received) or not self._verifier.matches():
            raise CorruptContent(f"the upstream's content is not {self._verifier.digest}")
        self._pass_on(self._received)

    def _pass_on(self, until: int) -> None:
        while self._held and self._passed + len(self._held[0]) <= until:
            piece = self._held.popleft()
            self._passed += len(piece)
            self.consumer.write(piece)
