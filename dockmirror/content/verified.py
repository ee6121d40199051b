"""Contents that are right, or are not completed."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from ..interfaces import IContent
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import Unavailable
from .onward import Onward

HOLD = 64 * 1024
"""How many of the last bytes wait until the digest is known to be right."""


class Corrupt(Unavailable):
    """The upstream's bytes are not the content that was asked for."""


@implementer(IContent)
class Verified:
    """A whole content whose end is held back until its digest and its size have proven right.

    A content no longer than what is held back reaches the consumer only if it is right.
    """

    def __init__(self, content: IContent, digest: Digest) -> None:
        size = content.descriptor.size
        self.descriptor = Descriptor(content.descriptor.media_type, digest, size)
        self._content = content
        self._digest = digest

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IContent``.

        :raises Corrupt: when the bytes are not those of the digest.
        """
        holding = _Holding(consumer, self._digest, self.descriptor.size)
        return self._content.deliver(holding).addCallback(lambda _: holding.complete())

    def discard(self) -> None:
        """See ``IContent``."""
        self._content.discard()


class _Holding(Onward):
    def __init__(self, consumer: IConsumer, digest: Digest, size: int | None) -> None:
        super().__init__(consumer)
        self._digest = digest
        self._verifier = digest.verifier()
        self._size = size
        self._received = 0
        self._passed = 0
        self._held: deque[bytes] = deque()

    def write(self, data: bytes) -> None:
        self._verifier.update(data)
        self._received += len(data)
        if self._size is None or self._received <= self._size:  # else it is wrong already
            self._held.append(data)
        self._pass_on(self._received - HOLD if self._size is None else min(self._received, self._size - HOLD))

    def complete(self) -> None:
        """Lets the end go."""
        if self._size not in (None, self._received) or not self._verifier.verified():
            raise Corrupt(f"the upstream's content is not {self._digest}")
        self._pass_on(self._received)

    def _pass_on(self, until: int) -> None:
        while self._held and self._passed + len(self._held[0]) <= until:
            piece = self._held.popleft()
            self._passed += len(piece)
            self.consumer.write(piece)
