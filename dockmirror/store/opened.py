"""Stored contents that were opened."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..content.held import BytesContent
from ..interfaces import IContent, IOpened
from ..oci.descriptor import Descriptor
from ..oci.ranges import ContentRange
from .reader import FileReader
from .reading import FileContent


@implementer(IOpened)
class OpenedBytes:
    """A content that is in memory."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data

    def content(self, descriptor: Descriptor, segments: Sequence[bytes | ContentRange]) -> IContent:
        """See ``IOpened``."""
        return BytesContent(b"".join(map(self._segment, segments)), descriptor)

    def close(self) -> None:
        """Nothing is held."""

    def _segment(self, segment: bytes | ContentRange) -> bytes:
        return segment if isinstance(segment, bytes) else self._data[segment.first : segment.last + 1]


@implementer(IOpened)
class OpenedFile:
    """A content that is in a file."""

    def __init__(self, reader: FileReader, size: int, clock: IReactorTime) -> None:
        self.size = size
        self._reader = reader
        self._clock = clock

    def content(self, descriptor: Descriptor, segments: Sequence[bytes | ContentRange]) -> IContent:
        """See ``IOpened``."""
        return FileContent(self._reader, descriptor, segments, self._clock)

    def close(self) -> None:
        """See ``IOpened``."""
        self._reader.close()
