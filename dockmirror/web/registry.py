"""The resources of ``/v2/``: what a client asks for, parsed and put to a registry."""

from __future__ import annotations

from twisted.web.resource import Resource

from ..headers import first, lines
from ..interfaces import Answer, IRegistry, IWrites
from ..oci.errors import Unsupported
from ..oci.etag import etag, parse_tags
from ..oci.media import parse_accept
from ..oci.request import Blob, Manifest, parse_target
from ..oci.request import Request as Asked
from .exchange import Request
from .query import asked_range, credentials, parameters
from .respond import respond
from .token import TokenService
from .writes import Writes


class V2(Resource):
    """Everything under ``/v2/``: the handshake, the token service, writes, and the passthrough of the rest.

    :param depth: how many segments of the path come before ``/v2/``.
    :param writes: what is written to, where anything is.
    """

    def __init__(self, registry: IRegistry, depth: int = 0, writes: IWrites | None = None) -> None:
        super().__init__()
        self._writes = None if writes is None else Writes(writes)
        self._passthrough = Passthrough(registry, depth)
        self._token = TokenService(registry)

    def getChild(self, path: bytes, request: Request) -> Resource:
        """``auth`` is the token service, unless more follows: then it is a repository's name."""
        if path == b"auth" and not request.postpath:
            return self._token
        return self._passthrough if self._writes is None or not Writes.takes(request) else self._writes

    def render(self, request: Request) -> int:
        """``/v2`` is asked for as ``/v2/`` is."""
        return self._passthrough.render(request)


class Passthrough(Resource):
    """What a registry is asked for, handshake included; the raw path says what it is."""

    isLeaf = True

    def __init__(self, registry: IRegistry, depth: int = 0) -> None:
        super().__init__()
        self._registry = registry
        self._depth = depth

    def render(self, request: Request) -> int:
        """Answers when the registry has."""
        return respond(request, self._fetch(request))

    async def _fetch(self, request: Request) -> Answer:
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
