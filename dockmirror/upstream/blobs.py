"""Blobs and parts of blobs, as an upstream sends them."""

from __future__ import annotations

from attrs import evolve
from twisted.web.iweb import IResponse

from ..content.capped import Capped
from ..content.doubted import Doubted
from ..content.part import Part
from ..headers import first
from ..interfaces import Answer, IContent
from ..oci.descriptor import Descriptor
from ..oci.errors import RangeInvalid, Unavailable
from ..oci.ranges import ContentRange
from ..oci.request import Blob, Request
from .answers import answer_of
from .client import Client, length_of
from .refusals import is_page

_TYPE = "application/octet-stream"


def blob_answer(client: Client, request: Request, target: Blob, response: IResponse, most: int) -> Answer:
    """The answer in a consent to a blob.

    One range is answered by 206 even where the upstream sends the whole: podman takes a 200 for a
    failure, and dockerd aborts.

    :param most: how many bytes are taken of it, where the upstream does not tell its length.
    :raises Unavailable: when it is another range than was asked for.
    :raises RangeInvalid: when no byte of the whole, which the upstream sends, lies in that range.
    """
    if response.code == 206 and not request.head:
        return _part_answer(client, request, response)
    descriptor = Descriptor(_TYPE, target.digest, length_of(response))
    answer = answer_of(request, response, _content(client, target, response, descriptor, most))
    span = request.range.only if request.range else None
    if answer.status != 200 or span is None or descriptor.size is None or request.head:
        return answer
    part = span.resolve(descriptor.size)
    if part is None:
        answer.content.discard()
        raise RangeInvalid(content_size=descriptor.size, upstream_status=response.code)
    return evolve(
        answer, status=206, content_range=part, content=Part(answer.content, part.first, part.length)
    )


def _content(
    client: Client, target: Blob, response: IResponse, descriptor: Descriptor, most: int
) -> IContent:
    """A file server may call a layer HTML; a page for people never has the digest."""
    content: IContent = client.body(response, descriptor)
    if descriptor.size is None:
        content = Capped(content, most)
    if is_page(response) and response.code != 304:
        content = Doubted(content, target.digest, "the upstream answered with a web page")
    return content


def _part_answer(client: Client, request: Request, response: IResponse) -> Answer:
    part = ContentRange.parse(first(response.headers, "Content-Range") or "")
    kind = first(response.headers, "Content-Type") or ""
    several = request.range is not None and request.range.only is None
    if several and part is None and kind.lower().startswith("multipart/byteranges"):
        return answer_of(
            request, response, client.body(response, Descriptor(kind, None, length_of(response)))
        )
    if part is None or not _asked_for(request, part):
        client.release(response)
        raise Unavailable("the upstream sent another range than was asked for", upstream_status=206)
    body = client.body(response, Descriptor(_TYPE, None, part.length))
    return evolve(answer_of(request, response, body), content_range=part)


def _asked_for(request: Request, part: ContentRange) -> bool:
    """Tell whether a part is one that was asked for, or several that the upstream has joined into one."""
    spans = request.range.spans if request.range else ()
    if request.range and part.size is not None:
        resolved = (span.resolve(part.size) for span in spans)
        return part in resolved or part in request.range.resolve(part.size)
    return any(span.first == part.first and span.last in (None, part.last) for span in spans)
