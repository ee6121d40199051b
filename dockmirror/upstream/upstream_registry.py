"""An upstream registry as an ``IRegistry``: manifests, verified before a byte is passed on, and blobs."""

from __future__ import annotations

import json

from attrs import define, evolve
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse
from zope.interface import implementer

from ..body.bodies import (
    BytesBody,
    CorruptContent,
    ErrorPageGuardBody,
    NoBody,
    SizeLimitedBody,
    Slice,
    collect,
    json_body,
)
from ..concurrency.coroutines import TTLCache
from ..headers import first, lines
from ..interfaces import Answer, IBody, IUpstream
from ..oci.consent import SAMPLE, HeldBlob, head_consents
from ..oci.digest import Descriptor, Digest
from ..oci.errors import BrokenOff, RangeInvalid, Unauthorized, Unavailable
from ..oci.header_fields import ContentRange, Range, etag_matches, parse_next_page
from ..oci.manifest import MANIFEST_LIMIT, ManifestDocument, parse_references, signed_payload
from ..oci.media import BLOB_TYPE, SIGNED
from ..oci.request import Blob, Catalog, Manifest, Ping, Referrers, RegistryRequest, Repository, Tags
from ..oci.token import TokenRequest
from .registry_client import ChallengeCache, RegistryClient, TokenRelay
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
    """Return the answer for a successful response to a blob's request; discard the response on an error.

    :param limit: how many bytes are accepted if the upstream announces no length.
    :raises Unavailable: when it is another range than was requested.
    :raises RangeInvalid: when the range has no byte in the whole blob, which the upstream sends.
    """
    try:
        if response.code == 206 and not request.head:
            return _make_range_answer(client, request, response)
        return _make_whole_answer(client, request, target, response, limit)
    except BaseException:
        client.make_body(response, Descriptor()).discard()
        raise


def _make_whole_answer(
    client: UpstreamClient, request: RegistryRequest, target: Blob, response: IResponse, limit: int
) -> Answer:
    """Answer one range by 206 even if the upstream sends the whole blob: podman treats a 200 as a failure,
    and dockerd aborts.
    """
    descriptor = Descriptor(BLOB_TYPE, target.digest, content_length(response))
    answer = make_answer(request, response, _make_body(client, target, response, descriptor, limit))
    span = request.range.single if request.range else None
    if answer.status != 200 or span is None or descriptor.size is None or request.head:
        return answer
    part = span.resolve(descriptor.size)
    if part is None:
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
        return await _head_blob_by_get(registry_client, client, request, target, limit)
    consents = await _check_sample(registry_client, client, request, target, held)
    return Answer(NoBody(Descriptor()), consents=consents)


def _head_response_consents(
    response: IResponse, reported: Descriptor, request: RegistryRequest, target: Blob
) -> bool:
    if response.code == 304:
        return is_unchanged(request, reported)
    size = request.held.size if request.held else None
    return response.code == 200 and not is_web_page(response) and head_consents(reported, target.digest, size)


async def _head_blob_by_get(
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
        raise Unavailable("the upstream sent another range than requested", upstream_status=206)
    body = client.make_body(response, Descriptor(BLOB_TYPE, None, part.length))
    return evolve(make_answer(request, response, body), content_range=part)


def _is_requested(request: RegistryRequest, part: ContentRange) -> bool:
    """Tell whether a range was requested, or joins several that were."""
    spans = request.range.spans if request.range else ()
    if request.range and part.size is not None:
        resolved = (span.resolve(part.size) for span in spans)
        return part in resolved or part in request.range.parts(part.size)
    return any(span.first == part.first and span.last in (None, part.last) for span in spans)


async def fetch_manifest(
    registry_client: RegistryClient, client: UpstreamClient, request: RegistryRequest, target: Manifest
) -> Answer:
    """Return a manifest, byte for byte.

    A HEAD that the upstream redirects or does not support, or whose response lacks headers that clients
    need, is replaced by a GET: crane fails without type, length or digest, containerd requests twice.  A 304
    is sufficient without them; docker-registry omits the digest there.  A manifest that breaks off is
    requested once more, since half of it is useless.

    :raises Corrupt: when it does not match its digest.
    """
    try:
        return await _fetch_once(registry_client, client, request, target)
    except BrokenOff:
        return await _fetch_once(registry_client, client, request, target)


async def _fetch_once(
    registry_client: RegistryClient, client: UpstreamClient, request: RegistryRequest, target: Manifest
) -> Answer:
    if request.head:
        return await _fetch_head(registry_client, client, request, target)
    final = await registry_client.follow(request)
    response, descriptor = final.response, _read_descriptor(final.response, target)
    reject_web_page(client, response)
    if response.code == 304:
        answer = make_answer(request, response, NoBody(descriptor))
        return evolve(answer, consents=not final.is_redirected)
    body = _verify(await client.read(response, MANIFEST_LIMIT), descriptor)
    consents = target.digest is not None or parse_references(body.data) is not None
    return evolve(make_answer(request, response, body), consents=consents)


async def _fetch_head(
    registry_client: RegistryClient, client: UpstreamClient, request: RegistryRequest, target: Manifest
) -> Answer:
    response = await registry_client.head(request)
    if response is None:
        return await _head_manifest_by_get(registry_client, client, request, target)
    reject_web_page(client, response)
    client.release(response)
    media_type = first(response.headers, "Content-Type")
    reported = Descriptor(media_type, read_digest(response), content_length(response))
    if response.code == 304 and is_unchanged(request, reported):
        body = NoBody(_read_descriptor(response, target))
        return evolve(make_answer(request, response, body), consents=True)
    if response.code == 200 and media_type is not None and head_consents(reported, target.digest):
        return evolve(make_answer(request, response, NoBody(reported)), consents=True)
    return await _head_manifest_by_get(registry_client, client, request, target)


async def _head_manifest_by_get(
    registry_client: RegistryClient, client: UpstreamClient, request: RegistryRequest, target: Manifest
) -> Answer:
    get = evolve(request, head=False, if_none_match=None)
    answer = await fetch_manifest(registry_client, client, get, target)
    descriptor = answer.body.descriptor
    status = 304 if etag_matches(request.if_none_match, descriptor.digest) else 200
    return evolve(answer, status=status, body=NoBody(descriptor))


def _verify(body: bytes, reported: Descriptor) -> BytesBody:
    digest = reported.digest or Digest.of(body)
    signed = reported.media_type is not None and reported.media_type.startswith(SIGNED)
    if not digest.matches(signed_payload(body) if signed else body):
        raise CorruptContent(f"the upstream's manifest does not match {digest}")
    if reported.digest is None and not _is_json_object(body):
        raise Unavailable("the upstream sent an invalid or incomplete manifest")
    return BytesBody(body, Descriptor(reported.media_type, digest, len(body)))


def _is_json_object(body: bytes) -> bool:
    """Tell whether the body is complete, if there is no digest to verify."""
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


def _read_descriptor(response: IResponse, target: Manifest) -> Descriptor:
    """Return the reported descriptor; a digest that was requested overrides the reported one."""
    return Descriptor(
        first(response.headers, "Content-Type"),
        target.digest or read_digest(response),
        content_length(response),
    )


@implementer(IUpstream)
@define(eq=False)
class UpstreamRegistry:
    """One upstream registry, without a cache."""

    _client: UpstreamClient
    _registry_client: RegistryClient
    _challenges: ChallengeCache
    _relay: TokenRelay
    _sizes: BlobSizes

    async def token(self, request: TokenRequest) -> Answer:
        return await self._relay.token(request)

    async def fetch(self, request: RegistryRequest) -> Answer:
        match request.target:
            case Ping():
                return await self._ping(request)
            case Manifest() as target:
                return await self._fetch_manifest(request, target)
            case Blob() as target:
                return await self._fetch_blob(request, target)
            case Tags() | Referrers() | Catalog():
                return await self._fetch_list(request)

    async def _ping(self, request: RegistryRequest) -> Answer:
        """Forward credentials, which the upstream checks; answer anonymous requests from the cached
        challenges.
        """
        if request.credentials is not None:
            self._client.release(await self._registry_client.send(request))
        elif challenges := await self._challenges.get_challenges():
            raise Unauthorized(challenges=challenges, upstream_status=401)
        return Answer(json_body(b"{}"), upstream_status=200)

    async def _fetch_manifest(self, request: RegistryRequest, target: Manifest) -> Answer:
        answer = await fetch_manifest(self._registry_client, self._client, request, target)
        if isinstance(answer.body, BytesBody):
            self._sizes.learn(target.repository, answer.body.data)
        return answer

    async def _fetch_blob(self, request: RegistryRequest, target: Blob) -> Answer:
        limit = self._sizes.get_limit(target.repository, target.digest)
        if request.head:
            return await fetch_blob_head(self._registry_client, self._client, request, target, limit)
        final = await self._registry_client.follow(request)
        answer = make_blob_answer(self._client, request, target, final.response, limit)
        if not final.is_other_origin:
            return answer

        async def open_part(part: Range) -> Answer:
            part_request = RegistryRequest(target, range=part)
            return make_blob_answer(
                self._client,
                part_request,
                target,
                await self._registry_client.send_to(final.url, part_request),
                limit,
            )

        return evolve(answer, open_range=open_part)

    async def _fetch_list(self, request: RegistryRequest) -> Answer:
        """Return a list of any length, streamed."""
        final = await self._registry_client.follow(request)
        response = final.response
        reject_web_page(self._client, response)
        media_type = first(response.headers, "Content-Type") or "application/json"
        content = self._client.make_body(response, Descriptor(media_type, None, content_length(response)))
        next_page = parse_next_page(lines(response.headers, "Link"))
        answer = make_answer(request, response, content)
        return evolve(answer, next_page=next_page, consents=not final.is_redirected)
