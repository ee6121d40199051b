"""The registry that is mirrored, asked over treq."""

from __future__ import annotations

from attrs import evolve
from zope.interface import implementer

from ..body.in_memory import BytesBody, json_body
from ..headers import first, lines
from ..interfaces import Answer, IRegistry
from ..oci.descriptor import Descriptor
from ..oci.errors import Unauthorized, Unavailable
from ..oci.link import parse_next_page
from ..oci.ranges import Range
from ..oci.request import Blob, Catalog, Manifest, Ping, Referrers, RegistryRequest, Tags
from ..oci.token import TokenRequest
from .answer_headers import make_answer
from .blob_sizes import BlobSizes
from .refusals import is_web_page
from .registry_client import RegistryClient
from .token_relay import ChallengeCache, TokenRelay
from .upstream_blobs import answer_blob, blob_head
from .upstream_client import UpstreamClient, length_of
from .upstream_manifests import answer_manifest


@implementer(IRegistry)
class UpstreamRegistry:
    """One upstream registry."""

    def __init__(
        self,
        client: UpstreamClient,
        asking: RegistryClient,
        handshake: ChallengeCache,
        relay: TokenRelay,
        sizes: BlobSizes,
    ) -> None:
        self._client = client
        self._asking = asking
        self._handshake = handshake
        self._relay = relay
        self._sizes = sizes

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._relay.token(request)

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``."""
        match request.target:
            case Ping():
                return await self._ping(request)
            case Manifest() as target:
                return await self._manifest(request, target)
            case Blob() as target:
                return await self._blob(request, target)
            case Tags() | Referrers() | Catalog():
                return await self._list(request)

    async def _ping(self, request: RegistryRequest) -> Answer:
        """With credentials it is their check, and forwarded; without, it is answered from what is known."""
        if request.credentials is not None:
            self._client.release(await self._asking.ask(request))
        elif challenges := await self._handshake.challenges():
            raise Unauthorized(challenges=challenges, upstream_status=401)
        return Answer(json_body(b"{}"), upstream_status=200)

    async def _manifest(self, request: RegistryRequest, target: Manifest) -> Answer:
        answer = await answer_manifest(self._asking, self._client, request, target)
        if isinstance(answer.body, BytesBody):
            self._sizes.learn(target.repository, answer.body.data)
        return answer

    async def _blob(self, request: RegistryRequest, target: Blob) -> Answer:
        most = self._sizes.most(target.repository, target.digest)
        if request.head:
            return await blob_head(self._asking, self._client, request, target, most)
        followed = await self._asking.follow(request)
        answer = answer_blob(self._client, request, target, followed.response, most)
        if not followed.moved:
            return answer
        url = followed.url

        async def part(wanted: Range) -> Answer:
            asked = RegistryRequest(target, range=wanted)
            return answer_blob(self._client, asked, target, await self._asking.ask_there(url, asked), most)

        return evolve(answer, open_range=part)

    async def _list(self, request: RegistryRequest) -> Answer:
        """A list of any length, streamed."""
        followed = await self._asking.follow(request)
        response = followed.response
        if is_web_page(response):
            self._client.release(response)
            raise Unavailable("the upstream answered with a web page", upstream_status=response.code)
        kind = first(response.headers, "Content-Type") or "application/json"
        content = self._client.body(response, Descriptor(kind, None, length_of(response)))
        next_page = parse_next_page(lines(response.headers, "Link"))
        answer = make_answer(request, response, content)
        return evolve(answer, next_page=next_page, consents=not followed.redirected)
