"""Contents of which it is doubtful whether they are an answer at all."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import IBody
from ..oci.digest import Digest
from ..oci.errors import Unavailable
from .verified import CorruptContent, VerifiedBody


@implementer(IBody)
class ErrorPageGuardBody:
    """A content that, where it is not that of its digest, was something else in its place.

    That is no fault of the content: it may be asked for again at once.
    """

    def __init__(self, content: IBody, digest: Digest, otherwise: str) -> None:
        self.descriptor = content.descriptor
        self._content = VerifiedBody(content, digest)
        self._otherwise = otherwise

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """See ``IBody``.

        :raises Unavailable: with what it was otherwise, when the bytes are not those of the digest.
        """
        return self._content.deliver(consumer).addErrback(self._wrong)

    def discard(self) -> None:
        """See ``IBody``."""
        self._content.discard()

    def _wrong(self, failure: Failure) -> None:
        failure.trap(CorruptContent)
        raise Unavailable(self._otherwise)
