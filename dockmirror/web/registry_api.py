"""The resources of ``/v2/``: what a client asks for, parsed and put to a registry."""

from __future__ import annotations

from twisted.web.resource import Resource

from ..headers import first, lines
from ..http.server_request import ServerRequest
from ..interfaces import Answer, IRegistry, IWritableRegistry
from ..oci.errors import Unsupported
from ..oci.etag import etag, parse_tags
from ..oci.media import parse_accept
from ..oci.request import Blob, Manifest, parse_target
from ..oci.request import RegistryRequest as Asked
from .query import asked_range, credentials, parameters
from .respond import respond
from .token_resource import TokenResource
from .write_resource import WriteResource


class V2Resource(Resource):
    """Everything under ``/v2/``: the handshake, the token service, writes, and the passthrough of the rest.

    :param depth: how many segments of the path come before ``/v2/``.
    :param writes: what is written to, where anything is.
    """

    def __init__(self, registry: IRegistry, depth: int = 0, writes: IWritableRegistry | None = None) -> None:
        super().__init__()
        self._writes = None if writes is None else WriteResource(writes)
        self._passthrough = PassthroughResource(registry, depth)
        self._token = TokenResource(registry)

    def getChild(self, path: bytes, request: ServerRequest) -> Resource:
        """``auth`` is the token service, unless more follows: then it is a repository's name."""
        if path == b"auth" and not request.postpath:
            return self._token
        return self._passthrough if self._writes is None or not WriteResource.takes(request) else self._writes

    def render(self, request: ServerRequest) -> int:
        """``/v2`` is asked for as ``/v2/`` is."""
        return self._passthrough.render(request)


class PassthroughResource(Resource):
    """What a registry is asked for, handshake included; the raw path says what it is."""

    isLeaf = True

    def __init__(self, registry: IRegistry, depth: int = 0) -> None:
        super().__init__()
        self._registry = registry
        self._depth = depth

    def render(self, request: ServerRequest) -> int:
        """Answers when the registry has."""
        return respond(request, self._fetch(request))

    async def _fetch(self, request: ServerRequest) -> Answer:
        if request.method not in (b"GET", b"HEAD"):
            raise Unsupported("this mirror is read-only")
        segments = request.path.split(b"/")
        target = parse_target(b"/".join([b"", *segments[1 + self._depth :]]))
        request.scopes = () if target.scope is None else (target.scope,)
        query = parameters(request)
        asked = Asked(
            target,
            head=request.method == b"HEAD",
            query=()
            if isinstance(target, Blob | Manifest)
            else tuple(pair for pair in query if pair[0] != "ns"),
            accept=parse_accept(lines(request.requestHeaders, "Accept")),
            range=asked_range(request, etag(target.digest)) if isinstance(target, Blob) else None,
            if_none_match=parse_tags(first(request.requestHeaders, "If-None-Match")),
            credentials=credentials(request),
            namespace=dict(query).get("ns"),
        )
        return await self._registry.fetch(asked)
