"""An upstream registry as an ``IRegistry``; its manifests are verified before any byte is passed on."""

from __future__ import annotations

import json

from attrs import evolve
from twisted.web.iweb import IResponse
from zope.interface import implementer

from ..body.in_memory import BytesBody, NoBody, json_body
from ..body.wrappers import CorruptContent
from ..headers import first, lines
from ..interfaces import Answer, IUpstream
from ..oci.consent import head_consents
from ..oci.digest import Descriptor, Digest
from ..oci.errors import BrokenOff, Unauthorized, Unavailable
from ..oci.header_fields import Range, etag_matches, parse_next_page
from ..oci.manifest import parse_references, signed_payload
from ..oci.media import SIGNED
from ..oci.request import Blob, Catalog, Manifest, Ping, Referrers, RegistryRequest, Tags
from ..oci.token import TokenRequest
from .registry_client import RegistryClient
from .token_relay import ChallengeCache, TokenRelay
from .upstream_blobs import BlobSizes, fetch_blob_head, make_blob_answer
from .upstream_client import UpstreamClient, content_length
from .upstream_responses import is_unchanged, make_answer, read_digest, reject_web_page

MANIFEST_LIMIT = 4 * 1024 * 1024
"""The most bytes of a manifest; clients accept no larger ones either."""


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
        return await _head_by_get(registry_client, client, request, target)
    reject_web_page(client, response)
    client.release(response)
    media_type = first(response.headers, "Content-Type")
    reported = Descriptor(media_type, read_digest(response), content_length(response))
    if response.code == 304 and is_unchanged(request, reported):
        body = NoBody(_read_descriptor(response, target))
        return evolve(make_answer(request, response, body), consents=True)
    if response.code == 200 and media_type is not None and head_consents(reported, target.digest):
        return evolve(make_answer(request, response, NoBody(reported)), consents=True)
    return await _head_by_get(registry_client, client, request, target)


async def _head_by_get(
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
class UpstreamRegistry:
    """One upstream registry, without a cache."""

    def __init__(
        self,
        client: UpstreamClient,
        registry_client: RegistryClient,
        challenges: ChallengeCache,
        relay: TokenRelay,
        sizes: BlobSizes,
    ) -> None:
        self._client = client
        self._registry_client = registry_client
        self._challenges = challenges
        self._relay = relay
        self._sizes = sizes

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
