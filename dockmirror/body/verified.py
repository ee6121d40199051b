"""Bodies whose tail is withheld until the digest matches."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.digest import Descriptor, Digest, Verifier
from ..oci.errors import Unavailable
from .consumers import ForwardingConsumer

TAIL_HOLDBACK = 64 * 1024
"""Bytes at the end that are withheld until the digest matches."""


class CorruptContent(Unavailable):
    """The upstream's bytes are not the content that was asked for."""


def releasable_length(length: int, size: int | None) -> int:
    """Return how many of the received bytes may be passed on before all are verified."""
    return max(0, length - TAIL_HOLDBACK if size is None else min(length, size - TAIL_HOLDBACK))


@implementer(IBody)
class VerifiedBody:
    """A complete body whose tail is withheld until its digest and its size match.

    A body no longer than the tail reaches the consumer only if it is right.
    """

    def __init__(self, body: IBody, digest: Digest) -> None:
        size = body.descriptor.size
        self.descriptor = Descriptor(body.descriptor.media_type, digest, size)
        self._body = body
        self._digest = digest

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """:raises CorruptContent: when the bytes do not match the digest."""
        holdback = TailHoldback(consumer, self._digest.verifier(), self.descriptor.size)
        return self._body.deliver(holdback).addCallback(lambda _: holdback.release_tail())

    def discard(self) -> None:
        self._body.discard()


class TailHoldback(ForwardingConsumer):
    """Passes a body on except for its tail, which is withheld until all of it is verified.

    :param verifier: was given the bytes that came before.
    :param received: number of the bytes that came before.
    :param tail: the last of them, which were not passed on.
    """

    def __init__(
        self, consumer: IConsumer, verifier: Verifier, size: int | None, received: int = 0, tail: bytes = b""
    ) -> None:
        super().__init__(consumer)
        self._verifier = verifier
        self._size = size
        self._received = received
        self._released = received - len(tail)
        self._tail = deque([tail] if tail else [])

    def write(self, data: bytes) -> None:
        self._verifier.update(data)
        self._received += len(data)
        if self._size is None or self._received <= self._size:  # else it is corrupt already
            self._tail.append(data)
        self._release(releasable_length(self._received, self._size))

    def release_tail(self) -> None:
        """Pass the tail on.

        :raises CorruptContent: when the bytes do not match the digest.
        """
        if self._size not in (None, self._received) or not self._verifier.matches():
            raise CorruptContent(f"the upstream's content is not {self._verifier.digest}")
        self._release(self._received)

    def _release(self, end: int) -> None:
        while self._tail and self._released + len(self._tail[0]) <= end:
            piece = self._tail.popleft()
            self._released += len(piece)
            self.consumer.write(piece)


@implementer(IBody)
class ErrorPageGuardBody:
    """Like ``VerifiedBody``, but a mismatch means "unavailable" (say, an error page), not "corrupt".

    So the content may be fetched again at once.

    :param reason: the text of the error at a mismatch.
    """

    def __init__(self, body: IBody, digest: Digest, reason: str) -> None:
        self.descriptor = body.descriptor
        self._body = VerifiedBody(body, digest)
        self._reason = reason

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """:raises Unavailable: when the bytes do not match the digest."""
        return self._body.deliver(consumer).addErrback(self._translate_mismatch)

    def discard(self) -> None:
        self._body.discard()

    def _translate_mismatch(self, failure: Failure) -> None:
        failure.trap(CorruptContent)
        raise Unavailable(self._reason)
