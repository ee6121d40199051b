"""Stored contents that are open."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..body.in_memory import BytesBody
from ..interfaces import IBody, IStoredContent
from ..oci.descriptor import Descriptor
from ..oci.ranges import ContentRange
from .file_body import FileBody
from .file_reader import FileReader


@implementer(IStoredContent)
class StoredBytes:
    """A content in memory."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data

    def body(self, descriptor: Descriptor, segments: Sequence[bytes | ContentRange]) -> IBody:
        return BytesBody(b"".join(map(self._segment, segments)), descriptor)

    def close(self) -> None:
        """Do nothing."""

    def _segment(self, segment: bytes | ContentRange) -> bytes:
        return segment if isinstance(segment, bytes) else self._data[segment.first : segment.last + 1]


@implementer(IStoredContent)
class OpenFile:
    """A content in an open file."""

    def __init__(self, reader: FileReader, size: int, clock: IReactorTime) -> None:
        self.size = size
        self._reader = reader
        self._clock = clock

    def body(self, descriptor: Descriptor, segments: Sequence[bytes | ContentRange]) -> IBody:
        return FileBody(self._reader, descriptor, segments, self._clock)

    def close(self) -> None:
        self._reader.close()
