"""The registry that is mirrored, asked over treq."""

from __future__ import annotations

from attrs import evolve
from zope.interface import implementer

from ..content.held import BytesContent, json_content
from ..headers import first, lines
from ..interfaces import Answer, IRegistry
from ..oci.descriptor import Descriptor
from ..oci.errors import Unauthorized, Unavailable
from ..oci.link import parse_next
from ..oci.ranges import Range
from ..oci.request import Blob, Catalog, Manifest, Ping, Referrers, Request, Tags
from ..oci.token import TokenRequest
from .answers import answer_of
from .asking import Asking
from .blobs import blob_answer, blob_head
from .client import Client, length_of
from .manifests import manifest_answer
from .refusals import is_page
from .sizes import Sizes
from .tokens import Handshake, Relay


@implementer(IRegistry)
class Upstream:
    """One upstream registry."""

    def __init__(
        self, client: Client, asking: Asking, handshake: Handshake, relay: Relay, sizes: Sizes
    ) -> None:
        self._client = client
        self._asking = asking
        self._handshake = handshake
        self._relay = relay
        self._sizes = sizes

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self._relay.token(request)

    async def fetch(self, request: Request) -> Answer:
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

    async def _ping(self, request: Request) -> Answer:
        """With credentials it is their check, and forwarded; without, it is answered from what is known."""
        if request.credentials is not None:
            self._client.release(await self._asking.ask(request))
        elif challenges := await self._handshake.challenges():
            raise Unauthorized(challenges=challenges, upstream_status=401)
        return Answer(json_content(b"{}"), upstream_status=200)

    async def _manifest(self, request: Request, target: Manifest) -> Answer:
        answer = await manifest_answer(self._asking, self._client, request, target)
        if isinstance(answer.content, BytesContent):
            self._sizes.learn(target.repository, answer.content.data)
        return answer

    async def _blob(self, request: Request, target: Blob) -> Answer:
        most = self._sizes.most(target.repository, target.digest)
        if request.head:
            return await blob_head(self._asking, self._client, request, target, most)
        followed = await self._asking.follow(request)
        answer = blob_answer(self._client, request, target, followed.response, most)
        if not followed.moved:
            return answer
        url = followed.url

        async def part(wanted: Range) -> Answer:
            asked = Request(target, range=wanted)
            return blob_answer(self._client, asked, target, await self._asking.ask_there(url, asked), most)

        return evolve(answer, parts=part)

    async def _list(self, request: Request) -> Answer:
        """A list of any length, streamed."""
        followed = await self._asking.follow(request)
        response = followed.response
        if is_page(response):
            self._client.release(response)
            raise Unavailable("the upstream answered with a web page", upstream_status=response.code)
        kind = first(response.headers, "Content-Type") or "application/json"
        content = self._client.body(response, Descriptor(kind, None, length_of(response)))
        next_page = parse_next(lines(response.headers, "Link"))
        answer = answer_of(request, response, content)
        return evolve(answer, next_page=next_page, consents=not followed.redirected)
