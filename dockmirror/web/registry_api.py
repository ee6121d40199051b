"""The resources of ``/v2/``: what a client asks for, parsed and put to a registry."""

from __future__ import annotations

from attrs import evolve
from twisted.web.resource import Resource

from ..body.in_memory import BytesBody, NoBody, collect
from ..headers import first, lines
from ..http.server_request import ServerRequest
from ..interfaces import Answer, IBody, IRegistry, IWritableRegistry
from ..oci.challenge import find_challenge
from ..oci.descriptor import Descriptor
from ..oci.errors import RegistryError, SizeInvalid, Unauthorized, Unavailable, Unsupported
from ..oci.etag import format_etag, parse_if_none_match
from ..oci.media import parse_accept
from ..oci.request import Blob, Manifest, parse_target
from ..oci.request import RegistryRequest as Asked
from ..oci.scope import Scope, parse_scopes
from ..oci.token import TokenRequest
from ..oci.write import Write, WriteResult, is_upload_path, parse_write
from .query import Parameters, parse_credentials, parse_pairs, parse_query, parse_range
from .respond import respond


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
        query = parse_query(request)
        asked = Asked(
            target,
            head=request.method == b"HEAD",
            query=()
            if isinstance(target, Blob | Manifest)
            else tuple(pair for pair in query if pair[0] != "ns"),
            accept=parse_accept(lines(request.requestHeaders, "Accept")),
            range=parse_range(request, format_etag(target.digest)) if isinstance(target, Blob) else None,
            if_none_match=parse_if_none_match(first(request.requestHeaders, "If-None-Match")),
            credentials=parse_credentials(request),
            namespace=dict(query).get("ns"),
        )
        return await self._registry.fetch(asked)


FORM_LIMIT = 64 * 1024
"""Bytes of a form; it holds a name, a password or a refresh token, and scopes."""


class TokenResource(Resource):
    """Takes requests by GET and, as forms, by POST."""

    isLeaf = True

    def __init__(self, registry: IRegistry) -> None:
        super().__init__()
        self._registry = registry

    def render(self, request: ServerRequest) -> int:
        """Answers when the token service has."""
        return respond(request, self._token(request))

    async def _token(self, request: ServerRequest) -> Answer:
        if not request.is_token:  # by another spelling, which whoever looks at paths would not know
            raise Unsupported("the token service is at /v2/auth", status=404)
        if request.method not in (b"GET", b"POST", b"HEAD"):
            raise Unsupported("a token is asked for by GET or by POST")
        form = request.method == b"POST"
        pairs = parse_query(request) + (_form(request) if form else ())
        return await self._registry.token(TokenRequest.parse(pairs, form, parse_credentials(request)))


def is_form(request: ServerRequest) -> bool:
    """Whether the body of this request is wanted: only a token service's form is."""
    return request.method == b"POST" and request.is_token


def _form(request: ServerRequest) -> Parameters:
    kind = first(request.requestHeaders, "Content-Type") or ""
    if kind.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise RegistryError("expected a form: application/x-www-form-urlencoded", status=400)
    return parse_pairs(request.content.read() if request.content else b"")


MANIFEST_LIMIT = 4 * 1024 * 1024
"""Bytes of a manifest; registries take no larger ones, and clients neither."""
_EMPTY = BytesBody(b"", Descriptor(size=0))


def may_stream(request: ServerRequest) -> bool:
    """Whether a request may be a write, whose body its resource takes as it comes."""
    return request.method in (b"POST", b"PUT", b"PATCH", b"DELETE") and request.path.startswith(b"/v2/")


class WriteResource(Resource):
    """Whatever below ``/v2/`` is more than a question."""

    isLeaf = True

    def __init__(self, writes: IWritableRegistry) -> None:
        super().__init__()
        self._writes = writes

    @staticmethod
    def takes(request: ServerRequest) -> bool:
        """Whether it is for this; a GET is where it asks how far an upload has come."""
        return request.method not in (b"GET", b"HEAD") or is_upload_path(request.path)

    def render(self, request: ServerRequest) -> int:
        """Answers when the registry has."""
        request.writable = True
        return respond(request, self._write(request))

    async def _write(self, request: ServerRequest) -> Answer:
        parts = ", ".join(lines(request.requestHeaders, "Content-Range")) or None
        method = request.method.decode("ascii", "replace")
        write = parse_write(method, request.path, parse_query(request), parts)
        write = evolve(write, credentials=parse_credentials(request))
        request.scopes = write.scopes
        below = f"/v2/{write.target.repository}/"
        try:
            written = await self._writes.write(write, await _body(request, write))
        except Unauthorized as refused:
            request.scopes = _scopes(write, refused)
            raise
        except RegistryError as error:
            if error.location is not None:
                error.location = below + error.location
            raise
        return _answer(written, below)


async def _body(request: ServerRequest, write: Write) -> IBody:
    """What is sent; a manifest, which is small, as a whole, so that it may be sent again.

    :raises SizeInvalid: when a manifest is larger than any may be.
    """
    body: IBody = _EMPTY if request.body is None else request.body
    if not isinstance(write.target, Manifest) or request.body is None:
        return body
    try:
        data = await collect(body, MANIFEST_LIMIT)
    except Unavailable:
        raise SizeInvalid(f"a manifest has at most {MANIFEST_LIMIT} bytes", status=413) from None
    return BytesBody(data, evolve(body.descriptor, size=len(data)))


def _scopes(write: Write, refused: Unauthorized) -> tuple[Scope, ...]:
    """What a token must allow: for how much of the repository the registry's own challenge tells."""
    bearer = find_challenge(refused.challenges, "Bearer")
    told = parse_scopes([bearer.get("scope")]) if bearer is not None else ()
    first_told = next((scope for scope in told if scope.is_repository), None)
    if first_told is None:
        return write.scopes
    return (evolve(write.scopes[0], actions=first_told.actions), *write.scopes[1:])


def _answer(written: WriteResult, below: str) -> Answer:
    descriptor = Descriptor(size=None if written.status == 204 else 0)
    return Answer(
        NoBody(descriptor),
        written.status,
        location=None if written.location is None else below + written.location,
        headers=written.headers,
        upstream_status=written.upstream_status,
    )
