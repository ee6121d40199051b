"""Blobs and parts of blobs, as an upstream sends them."""

from __future__ import annotations

from attrs import evolve
from twisted.web.iweb import IResponse

from ..body.error_page_guard import ErrorPageGuardBody
from ..body.in_memory import NoBody, collect
from ..body.size_limited import SizeLimitedBody
from ..body.slice import Slice
from ..headers import first
from ..interfaces import Answer, IBody
from ..oci.consent import SAMPLE, HeldBlob, head_consents
from ..oci.descriptor import Descriptor
from ..oci.errors import RangeInvalid, Unavailable
from ..oci.ranges import ContentRange, Range
from ..oci.request import Blob, RegistryRequest
from .answer_headers import make_answer, told_digest, unchanged
from .refusals import is_web_page
from .registry_client import RegistryClient
from .upstream_client import UpstreamClient, length_of

_TYPE = "application/octet-stream"


def answer_blob(
    client: UpstreamClient, request: RegistryRequest, target: Blob, response: IResponse, most: int
) -> Answer:
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
    answer = make_answer(request, response, _content(client, target, response, descriptor, most))
    span = request.range.single if request.range else None
    if answer.status != 200 or span is None or descriptor.size is None or request.head:
        return answer
    part = span.resolve(descriptor.size)
    if part is None:
        answer.body.discard()
        raise RangeInvalid(content_size=descriptor.size, upstream_status=response.code)
    return evolve(answer, status=206, content_range=part, body=Slice(answer.body, part.first, part.length))


async def blob_head(
    asking: RegistryClient, client: UpstreamClient, request: RegistryRequest, target: Blob, most: int
) -> Answer:
    """Return what a blob is, without its bytes: as the registry answers a HEAD, or else by a GET of a part.

    :param most: see ``answer_blob``.
    """
    response, held = await asking.head(request), request.held
    if response is not None:
        client.release(response)
        told = Descriptor(_TYPE, told_digest(response), length_of(response))
        proven = _head_proves(response, told, request, target)
        if proven or held is None:
            answer = make_answer(request, response, NoBody(evolve(told, digest=target.digest)))
            return evolve(answer, consents=proven)
    if held is None:
        return await _sized(asking, client, request, target, most)
    return Answer(NoBody(Descriptor()), consents=await _sampled(asking, client, request, target, held))


def _head_proves(response: IResponse, told: Descriptor, request: RegistryRequest, target: Blob) -> bool:
    if response.code == 304:
        return unchanged(request, told)
    size = request.held.size if request.held else None
    return response.code == 200 and not is_web_page(response) and head_consents(told, target.digest, size)


async def _sized(
    asking: RegistryClient, client: UpstreamClient, request: RegistryRequest, target: Blob, most: int
) -> Answer:
    """The answer to a HEAD, from a GET of the first byte, which tells the size."""
    asked = evolve(request, head=False, if_none_match=None, range=Range.starting_at(0, 0))
    try:
        answer = answer_blob(client, asked, target, await asking.ask(asked), most)
    except RangeInvalid as error:
        if error.content_size != 0:
            raise
        return Answer(NoBody(Descriptor(_TYPE, target.digest, 0)), upstream_status=error.upstream_status)
    answer.body.discard()
    part = answer.content_range
    size = part.size if part else answer.body.descriptor.size
    return evolve(answer, status=200, content_range=None, body=NoBody(Descriptor(_TYPE, target.digest, size)))


async def _sampled(
    asking: RegistryClient, client: UpstreamClient, request: RegistryRequest, target: Blob, held: HeldBlob
) -> bool:
    """Whether the upstream gives the same part of the blob."""
    sample = await held.sample()
    if sample is None:
        return False
    wanted = Range.starting_at(sample.part.first, sample.part.last)
    asked = evolve(request, head=False, held=None, if_none_match=None, range=wanted)
    try:
        answer = answer_blob(client, asked, target, await asking.ask(asked), sample.part.last + 1)
    except RangeInvalid:
        return False
    if answer.content_range != sample.part:
        answer.body.discard()
        return False
    return sample.matches(answer.content_range, await collect(answer.body, SAMPLE))


def _content(
    client: UpstreamClient, target: Blob, response: IResponse, descriptor: Descriptor, most: int
) -> IBody:
    """A file server may call a layer HTML; a page for people never has the digest."""
    content: IBody = client.body(response, descriptor)
    if descriptor.size is None:
        content = SizeLimitedBody(content, most)
    if is_web_page(response) and response.code != 304:
        content = ErrorPageGuardBody(content, target.digest, "the upstream answered with a web page")
    return content


def _part_answer(client: UpstreamClient, request: RegistryRequest, response: IResponse) -> Answer:
    part = ContentRange.parse(first(response.headers, "Content-Range") or "")
    kind = first(response.headers, "Content-Type") or ""
    several = request.range is not None and request.range.single is None
    if several and part is None and kind.lower().startswith("multipart/byteranges"):
        return make_answer(
            request, response, client.body(response, Descriptor(kind, None, length_of(response)))
        )
    if part is None or not _asked_for(request, part):
        client.release(response)
        raise Unavailable("the upstream sent another range than was asked for", upstream_status=206)
    body = client.body(response, Descriptor(_TYPE, None, part.length))
    return evolve(make_answer(request, response, body), content_range=part)


def _asked_for(request: RegistryRequest, part: ContentRange) -> bool:
    """Tell whether a part is one that was asked for, or several that the upstream has joined into one."""
    spans = request.range.spans if request.range else ()
    if request.range and part.size is not None:
        resolved = (span.resolve(part.size) for span in spans)
        return part in resolved or part in request.range.resolve(part.size)
    return any(span.first == part.first and span.last in (None, part.last) for span in spans)
