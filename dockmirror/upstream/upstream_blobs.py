"""Blobs and ranges of blobs, as an upstream sends them."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse

from ..body.in_memory import NoBody, collect
from ..body.wrappers import ErrorPageGuardBody, SizeLimitedBody, Slice
from ..concurrency.coroutines import TTLCache
from ..headers import first
from ..interfaces import Answer, IBody
from ..oci.consent import SAMPLE, HeldBlob, head_consents
from ..oci.digest import Descriptor, Digest
from ..oci.errors import RangeInvalid, Unavailable
from ..oci.header_fields import ContentRange, Range
from ..oci.manifest import ManifestDocument
from ..oci.media import BLOB_TYPE
from ..oci.request import Blob, RegistryRequest, Repository
from .registry_client import RegistryClient
from .upstream_client import UpstreamClient, content_length
from .upstream_responses import is_unchanged, is_web_page, make_answer, read_digest, reject_web_page

DEFAULT_LIMIT = 16 * 1024 * 1024 * 1024
"""The most bytes of a blob whose length neither a manifest nor the upstream states."""
_TTL = 3600.0
_MAX_SIZES = 10_000


class BlobSizes:
    """Remembers the sizes that manifests state, to limit blobs whose length the upstream does not announce.

    A manifest counts for its own repository only: its author does not decide for others.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._sizes: TTLCache[tuple[Repository, Digest], int] = TTLCache(clock, _MAX_SIZES)

    def learn(self, repository: Repository, manifest: bytes) -> None:
        """Remember the sizes in a manifest for an hour; ignore bytes that are no manifest."""
        read = ManifestDocument.parse(manifest)
        for blob in read.blobs if read else ():
            if blob.digest is not None and blob.size is not None and blob.size >= 0:
                self._sizes.put((repository, blob.digest), blob.size, _TTL)

    def get_limit(self, repository: Repository, digest: Digest) -> int:
        """Return the most bytes that a blob may have."""
        size = self._sizes.get((repository, digest))
        return DEFAULT_LIMIT if size is None else size


def make_blob_answer(
    client: UpstreamClient, request: RegistryRequest, target: Blob, response: IResponse, limit: int
) -> Answer:
    """Return the answer for a successful response to a blob's request.

    One range is answered by 206 even if the upstream sends the whole blob: podman treats a 200 as a failure,
    and dockerd aborts.

    :param limit: how many bytes are accepted if the upstream announces no length.
    :raises Unavailable: when it is another range than was requested.
    :raises RangeInvalid: when the range has no byte in the whole blob, which the upstream sends.
    """
    if response.code == 206 and not request.head:
        return _make_range_answer(client, request, response)
    descriptor = Descriptor(BLOB_TYPE, target.digest, content_length(response))
    answer = make_answer(request, response, _make_body(client, target, response, descriptor, limit))
    span = request.range.single if request.range else None
    if answer.status != 200 or span is None or descriptor.size is None or request.head:
        return answer
    part = span.resolve(descriptor.size)
    if part is None:
        answer.body.discard()
        raise RangeInvalid(content_size=descriptor.size, upstream_status=response.code)
    return evolve(answer, status=206, content_range=part, body=Slice(answer.body, part.first, part.length))


async def fetch_blob_head(
    registry_client: RegistryClient,
    client: UpstreamClient,
    request: RegistryRequest,
    target: Blob,
    limit: int,
) -> Answer:
    """Return the answer to a HEAD: the registry's own, or else made from a GET of a range.

    :param limit: see ``make_blob_answer``.
    """
    response, held = await registry_client.head(request), request.held
    if response is not None:
        client.release(response)
        reported = Descriptor(BLOB_TYPE, read_digest(response), content_length(response))
        consents = _head_response_consents(response, reported, request, target)
        is_sufficient = response.code == 304 or (reported.size is not None and not is_web_page(response))
        if consents or (held is None and is_sufficient):
            answer = make_answer(request, response, NoBody(evolve(reported, digest=target.digest)))
            return evolve(answer, consents=consents)
    if held is None:
        return await _head_by_get(registry_client, client, request, target, limit)
    consents = await _check_sample(registry_client, client, request, target, held)
    return Answer(NoBody(Descriptor()), consents=consents)


def _head_response_consents(
    response: IResponse, reported: Descriptor, request: RegistryRequest, target: Blob
) -> bool:
    if response.code == 304:
        return is_unchanged(request, reported)
    size = request.held.size if request.held else None
    return response.code == 200 and not is_web_page(response) and head_consents(reported, target.digest, size)


async def _head_by_get(
    registry_client: RegistryClient,
    client: UpstreamClient,
    request: RegistryRequest,
    target: Blob,
    limit: int,
) -> Answer:
    """Return the answer to a HEAD, made from a GET of the first byte, which tells the size."""
    first_byte = evolve(request, head=False, if_none_match=None, range=Range.starting_at(0, 0))
    try:
        response = await registry_client.send(first_byte)
        if response.code == 200:
            reject_web_page(client, response)
        answer = make_blob_answer(client, first_byte, target, response, limit)
    except RangeInvalid as error:
        if error.content_size != 0:
            raise
        return Answer(NoBody(Descriptor(BLOB_TYPE, target.digest, 0)), upstream_status=error.upstream_status)
    answer.body.discard()
    part = answer.content_range
    size = part.size if part else answer.body.descriptor.size
    return evolve(
        answer, status=200, content_range=None, body=NoBody(Descriptor(BLOB_TYPE, target.digest, size))
    )


async def _check_sample(
    registry_client: RegistryClient,
    client: UpstreamClient,
    request: RegistryRequest,
    target: Blob,
    held: HeldBlob,
) -> bool:
    """Return whether the upstream sends the same part of the blob.

    The upstream is asked first: its refusal need not wait until the part of a download has arrived.
    """
    if held.part is None:
        return False
    part = Range.starting_at(held.part.first, held.part.last)
    part_request = evolve(request, head=False, held=None, if_none_match=None, range=part)
    try:
        response = await registry_client.send(part_request)
        answer = make_blob_answer(client, part_request, target, response, held.part.last + 1)
    except RangeInvalid:
        return False
    if answer.content_range != held.part:
        answer.body.discard()
        return False
    return await held.matches(answer.content_range, await collect(answer.body, SAMPLE))


def _make_body(
    client: UpstreamClient, target: Blob, response: IResponse, descriptor: Descriptor, limit: int
) -> IBody:
    """Guard the response's body: a file server may label a layer HTML, but an error page never has its
    digest.
    """
    body: IBody = client.make_body(response, descriptor)
    if descriptor.size is None:
        body = SizeLimitedBody(body, limit)
    if is_web_page(response) and response.code != 304:
        body = ErrorPageGuardBody(body, target.digest, "the upstream answered with a web page")
    return body


def _make_range_answer(client: UpstreamClient, request: RegistryRequest, response: IResponse) -> Answer:
    part = ContentRange.parse(first(response.headers, "Content-Range") or "")
    media_type = first(response.headers, "Content-Type") or ""
    is_multirange = request.range is not None and request.range.single is None
    if is_multirange and part is None and media_type.lower().startswith("multipart/byteranges"):
        return make_answer(
            request,
            response,
            client.make_body(response, Descriptor(media_type, None, content_length(response))),
        )
    if part is None or not _is_requested(request, part):
        client.release(response)
        raise Unavailable("the upstream sent another range than requested", upstream_status=206)
    body = client.make_body(response, Descriptor(BLOB_TYPE, None, part.length))
    return evolve(make_answer(request, response, body), content_range=part)


def _is_requested(request: RegistryRequest, part: ContentRange) -> bool:
    """Tell whether a range was requested, or joins several that were."""
    spans = request.range.spans if request.range else ()
    if request.range and part.size is not None:
        resolved = (span.resolve(part.size) for span in spans)
        return part in resolved or part in request.range.resolve(part.size)
    return any(span.first == part.first and span.last in (None, part.last) for span in spans)
