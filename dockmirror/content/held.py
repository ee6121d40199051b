"""Contents that are here already, and what reads a content whole."""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IProducer
from zope.interface import implementer

from ..interfaces import IContent
from ..oci.descriptor import Descriptor
from ..oci.errors import Unavailable


@implementer(IContent)
@frozen
class BytesContent:
    """Bytes that are held in memory."""

    data: bytes = field(repr=False)
    descriptor: Descriptor

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Writes them at once."""
        consumer.write(self.data)
        return succeed(None)

    def discard(self) -> None:
        """Nothing is held."""


def json_content(data: bytes) -> BytesContent:
    """A JSON document."""
    return BytesContent(data, Descriptor("application/json", None, len(data)))


def absent(descriptor: Descriptor) -> BytesContent:
    """The body that a HEAD or a 304 describes and does not bring."""
    return BytesContent(b"", descriptor)


async def collect(content: IContent, limit: int) -> bytes:
    """All bytes of a content.

    :raises Unavailable: when there are more than ``limit`` of them; the rest is not read.
    """
    if content.descriptor.size is not None and content.descriptor.size > limit:
        content.discard()
        raise _too_large(limit)
    collected = _Collected(limit)
    delivery = content.deliver(collected)
    collected.overflow = delivery.cancel
    try:
        await delivery
    except Exception:
        if collected.size <= limit:
            raise
    if collected.size > limit:
        raise _too_large(limit)
    return b"".join(collected.pieces)


def _too_large(limit: int) -> Unavailable:
    return Unavailable(f"the upstream's answer is larger than {limit} bytes")


@implementer(IConsumer)
class _Collected:
    """Keeps what is written, up to a limit."""

    def __init__(self, limit: int) -> None:
        self.pieces: list[bytes] = []
        self.size = 0
        self.overflow: Callable[[], None] | None = None
        self._limit = limit

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """The pace is set by nobody: what comes is kept."""

    def unregisterProducer(self) -> None:
        """See ``registerProducer``."""

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self.size <= self._limit:
            self.pieces.append(data)
        elif self.overflow is not None:
            overflow, self.overflow = self.overflow, None
            overflow()
