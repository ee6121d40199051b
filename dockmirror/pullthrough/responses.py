"""Answers from stored content: the whole, parts of it, or its headers alone."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from attrs import evolve

from ..body.in_memory import NoBody
from ..interfaces import Answer, IBody, IStoredContent
from ..oci.cache_status import CacheResult, CacheStatus
from ..oci.descriptor import Descriptor
from ..oci.etag import etag_matches, format_etag
from ..oci.ranges import ContentRange
from ..oci.request import RegistryRequest

STALE = 7 * 24 * 3600.0
"""Seconds since it was confirmed after which nothing is served stale any more."""
_MOST_RANGES = 16
Headers = tuple[tuple[str, str], ...]


def bypassed(answer: Answer) -> Answer:
    """The upstream's, with which the cache has nothing to do."""
    return evolve(answer, cache=CacheStatus(CacheResult.BYPASS))


def cached_response(
    request: RegistryRequest, opened: IStoredContent, descriptor: Descriptor, told: CacheStatus
) -> Answer:
    """The answer of an opened content to what was asked of it.

    :raises RangeInvalid: when no byte lies in the ranges asked for; the content is closed.
    """
    answer = Answer(NoBody(descriptor), cache=told)
    if etag_matches(request.if_none_match, descriptor.digest):
        opened.close()
        return evolve(answer, status=304)
    if request.head:
        opened.close()
        return answer
    if request.range is None or len(request.range.spans) > _MOST_RANGES:
        return evolve(answer, body=opened.body(descriptor, whole_range(opened.size)))
    try:
        parts = request.range.resolve(opened.size)
    except Exception:
        opened.close()
        raise
    if len(parts) > 1:
        content = _multipart(opened, descriptor, parts)
        return evolve(answer, status=206, body=content, headers=(*answer.headers, *_of_whole(descriptor)))
    return evolve(answer, status=206, content_range=parts[0], body=_part(opened, descriptor, parts[0]))


def whole_range(size: int) -> tuple[ContentRange, ...]:
    """The one part that is everything; none of nothing."""
    return (ContentRange(0, size - 1, size),) if size else ()


def _of_whole(descriptor: Descriptor) -> Headers:
    """Return the headers that a body of several parts must carry for the whole.

    Source: RFC 9110, 15.3.7.
    """
    assert descriptor.digest is not None
    return (("ETag", format_etag(descriptor.digest)), ("Accept-Ranges", "bytes"))


def _part(opened: IStoredContent, descriptor: Descriptor, part: ContentRange) -> IBody:
    return opened.body(evolve(descriptor, size=part.length), (part,))


def _multipart(opened: IStoredContent, descriptor: Descriptor, parts: Iterable[ContentRange]) -> IBody:
    """Source: RFC 9110, 14.6."""
    boundary = secrets.token_hex(16)
    segments: list[bytes | ContentRange] = []
    for part in parts:
        head = f"\r\n--{boundary}\r\nContent-Type: {descriptor.media_type}\r\nContent-Range: {part}\r\n\r\n"
        segments += [head.encode(), part]
    segments.append(f"\r\n--{boundary}--\r\n".encode())
    size = sum(len(s) if isinstance(s, bytes) else s.length for s in segments)
    return opened.body(Descriptor(f"multipart/byteranges; boundary={boundary}", None, size), segments)
