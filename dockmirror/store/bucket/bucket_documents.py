"""Documents in a bucket."""

from __future__ import annotations

from zope.interface import implementer

from ...interfaces import IDocumentStore
from .. import layout
from .bucket import Bucket


@implementer(IDocumentStore)
class BucketDocumentStore:
    """Documents as objects."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def read(self, name: str) -> bytes | None:
        """See ``IDocumentStore``."""
        read = await self._bucket.read(layout.document(name))
        return read[0] if read else None

    async def write(self, name: str, data: bytes) -> None:
        """See ``IDocumentStore``."""
        await self._bucket.put(layout.document(name), data)
