"""An upstream registry as an ``IRegistry``."""

from __future__ import annotations

from attrs import evolve
from zope.interface import implementer

from ..body.in_memory import BytesBody, json_body
from ..headers import first, lines
from ..interfaces import Answer, IUpstream
from ..oci.descriptor import Descriptor
from ..oci.errors import Unauthorized, Unavailable
from ..oci.header_fields import parse_next_page
from ..oci.ranges import Range
from ..oci.request import Blob, Catalog, Manifest, Ping, Referrers, RegistryRequest, Tags
from ..oci.token import TokenRequest
from .registry_client import RegistryClient
from .token_relay import ChallengeCache, TokenRelay
from .upstream_blobs import BlobSizes, fetch_blob_head, make_blob_answer
from .upstream_client import UpstreamClient, content_length
from .upstream_manifests import fetch_manifest
from .upstream_responses import is_web_page, make_answer


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
        if is_web_page(response):
            self._client.release(response)
            raise Unavailable("the upstream answered with a web page", upstream_status=response.code)
        media_type = first(response.headers, "Content-Type") or "application/json"
        content = self._client.make_body(response, Descriptor(media_type, None, content_length(response)))
        next_page = parse_next_page(lines(response.headers, "Link"))
        answer = make_answer(request, response, content)
        return evolve(answer, next_page=next_page, consents=not final.is_redirected)
