"""Contents that are here already, and what reads a content whole."""

from __future__ import annotations

from attrs import field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IProducer
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.descriptor import Descriptor
from .size_limited import SizeLimitedBody, too_large


@implementer(IBody)
@frozen
class BytesBody:
    """Bytes that are held in memory."""

    data: bytes = field(repr=False)
    descriptor: Descriptor

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Writes them at once."""
        consumer.write(self.data)
        return succeed(None)

    def discard(self) -> None:
        """Nothing is held."""


def json_body(data: bytes) -> BytesBody:
    """A JSON document."""
    return BytesBody(data, Descriptor("application/json", None, len(data)))


def NoBody(descriptor: Descriptor) -> BytesBody:
    """The body that a HEAD or a 304 describes and does not bring."""
    return BytesBody(b"", descriptor)


async def collect(content: IBody, limit: int) -> bytes:
    """All bytes of a content.

    :raises Unavailable: when there are more than ``limit`` of them; the rest is not read.
    """
    if content.descriptor.size is not None and content.descriptor.size > limit:
        content.discard()
        raise too_large(limit)
    kept = _Collector()
    await SizeLimitedBody(content, limit).deliver(kept)
    return b"".join(kept.pieces)


@implementer(IConsumer)
class _Collector:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """The pace is set by nobody: what comes is kept."""

    def unregisterProducer(self) -> None:
        """See ``registerProducer``."""

    def write(self, data: bytes) -> None:
        self.pieces.append(data)
