"""The resource tree: access by network, the host that a request names, its paths, and the registry API."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import evolve
from twisted.web.resource import IResource, Resource
from twisted.web.vhost import NameVirtualHost

from ..body.bodies import BytesBody, NoBody, collect
from ..http.server_request import (
    Parameters,
    ServerRequest,
    parse_credentials,
    parse_pairs,
    parse_query,
    parse_range,
)
from ..interfaces import Answer, IBody, IRegistry, ITokenService, IWritableRegistry
from ..oci.digest import Descriptor
from ..oci.errors import RegistryError, SizeInvalid, Unauthorized, Unavailable, Unsupported, find_challenge
from ..oci.header_fields import Range, demands_revalidation, format_etag, parse_if_none_match
from ..oci.manifest import MANIFEST_LIMIT
from ..oci.media import parse_accept
from ..oci.request import Blob, Manifest, RegistryRequest, Target, parse_target
from ..oci.token import Scope, TokenRequest, parse_scopes
from ..oci.write import Write, WriteResult, is_upload_path, parse_write
from ..system.networks import is_address
from .respond import RefusalResource, respond

FORM_LIMIT = 64 * 1024
"""Bytes of a token request's form: a name, a password or refresh token, and scopes."""
_EMPTY = BytesBody(b"", Descriptor(size=0))
_NOT_FOUND = RefusalResource(Unsupported("not found; registry paths begin with /v2/", status=404))


class LateResource(Resource):
    """Stands for a resource that is made, with all that it imports, at the first request for it."""

    def __init__(self, make: Callable[[], IResource]) -> None:
        super().__init__()
        self._make = make
        self._made: IResource | None = None

    def getChildWithDefault(self, path: bytes, request: ServerRequest) -> IResource:
        resource = self._resource()
        return resource if resource.isLeaf else IResource(resource.getChildWithDefault(path, request))

    def render(self, request: ServerRequest) -> object:
        return self._resource().render(request)

    def _resource(self) -> IResource:
        if self._made is None:
            self._made = self._make()
        return self._made


class V2Resource(Resource):
    """Routes ``/v2/`` to the token service, to writes, or to reads.

    :param depth: number of path segments before ``/v2/``.
    :param tokens: the token service of the host; None if it serves anonymously.
    :param writes: the registry that accepts writes; None if the mirror is read-only here.
    """

    def __init__(
        self,
        registry: IRegistry,
        depth: int = 0,
        tokens: ITokenService | None = None,
        writes: IWritableRegistry | None = None,
    ) -> None:
        super().__init__()
        self._writes = None if writes is None else WriteResource(writes)
        self._passthrough = PassthroughResource(registry, depth)
        anonymous = Unsupported("this host serves anonymously and has no tokens", status=404)
        self._token = TokenResource(tokens) if tokens else RefusalResource(anonymous)

    def getChild(self, path: bytes, request: ServerRequest) -> Resource:
        """Return the resource for the next segment; ``auth`` followed by more is a repository's name."""
        if path == b"auth" and not request.postpath:
            return self._token
        return self._passthrough if self._writes is None or not WriteResource.takes(request) else self._writes

    def render(self, request: ServerRequest) -> int:
        """Answer ``/v2`` as ``/v2/``."""
        return self._passthrough.render(request)


class PassthroughResource(Resource):
    """Fetches manifests, blobs, lists and the ping from a registry."""

    isLeaf = True

    def __init__(self, registry: IRegistry, depth: int = 0) -> None:
        super().__init__()
        self._registry = registry
        self._depth = depth

    def render(self, request: ServerRequest) -> int:
        return respond(request, self._fetch(request))

    async def _fetch(self, request: ServerRequest) -> Answer:
        if request.method not in (b"GET", b"HEAD"):
            raise Unsupported("this mirror is read-only")
        segments = request.path.split(b"/")
        target = parse_target(b"/".join([b"", *segments[1 + self._depth :]]))
        query, credentials, fields = parse_query(request), parse_credentials(request), request.fields
        condition = fields.get("if-none-match")
        no_cache = "cache-control" in fields and demands_revalidation(fields["cache-control"])
        read = RegistryRequest(
            target,
            head=request.method == b"HEAD",
            query=()
            if isinstance(target, Blob | Manifest)
            else tuple(pair for pair in query if pair[0] != "ns"),
            accept=parse_accept(fields.get("accept", ())),
            range=_parse_range(request, target),
            if_none_match=parse_if_none_match(", ".join(condition)) if condition else None,
            credentials=credentials,
            namespace=dict(query).get("ns"),
            revalidate=no_cache,
            no_cache=no_cache,
            received=request,
        )
        try:
            return await self._registry.fetch(read)
        except Unauthorized:
            request.scopes = () if target.scope is None else (target.scope,)
            raise


def _parse_range(request: ServerRequest, target: Target) -> Range | None:
    if not isinstance(target, Blob) or "range" not in request.fields:
        return None
    return parse_range(request, format_etag(target.digest))


class TokenResource(Resource):
    """``/v2/auth``, the token service that the mirror's challenges name; accepts GET and form POST."""

    isLeaf = True

    def __init__(self, tokens: ITokenService) -> None:
        super().__init__()
        self._tokens = tokens

    def render(self, request: ServerRequest) -> int:
        return respond(request, self._token(request))

    async def _token(self, request: ServerRequest) -> Answer:
        if not request.is_token_request:  # by another spelling, which whoever looks at paths would not know
            raise Unsupported("the token service is at /v2/auth", status=404)
        if request.method not in (b"GET", b"POST", b"HEAD"):
            raise Unsupported("request a token with GET or POST")
        form = request.method == b"POST"
        pairs = parse_query(request) + (_form(request) if form else ())
        return await self._tokens.token(TokenRequest.parse(pairs, form, parse_credentials(request)))


def is_form(request: ServerRequest) -> bool:
    """Return whether the request's body is read before rendering: only a token request's form is."""
    return request.method == b"POST" and request.is_token_request


def _form(request: ServerRequest) -> Parameters:
    kind = request.field("content-type") or ""
    if kind.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise RegistryError("expected a form: application/x-www-form-urlencoded", status=400)
    return parse_pairs(request.content.read() if request.content else b"")


def may_stream(request: ServerRequest) -> bool:
    """Return whether the request may be a write, whose body is streamed to its resource."""
    return request.method in (b"POST", b"PUT", b"PATCH", b"DELETE") and request.path.startswith(b"/v2/")


class WriteResource(Resource):
    """Handles uploads, manifest writes and deletions."""

    isLeaf = True

    def __init__(self, writes: IWritableRegistry) -> None:
        super().__init__()
        self._writes = writes

    @staticmethod
    def takes(request: ServerRequest) -> bool:
        """Return whether the request belongs here; a GET does if it asks for an upload's progress."""
        return request.method not in (b"GET", b"HEAD") or is_upload_path(request.path)

    def render(self, request: ServerRequest) -> int:
        request.is_writable = True
        return respond(request, self._write(request))

    async def _write(self, request: ServerRequest) -> Answer:
        parts = ", ".join(request.fields.get("content-range", ())) or None
        method = request.method.decode("ascii", "replace")
        write = parse_write(method, request.path, parse_query(request), parts)
        write = evolve(write, credentials=parse_credentials(request))
        request.scopes = write.scopes
        prefix = f"/v2/{write.target.repository}/"
        try:
            result = await self._writes.write(write, await _body(request, write))
        except Unauthorized as refused:
            request.scopes = _scopes(write, refused)
            raise
        except RegistryError as error:
            if error.location is not None:
                error.location = prefix + error.location
            raise
        return _answer(result, prefix)


async def _body(request: ServerRequest, write: Write) -> IBody:
    """Return the request's body; a manifest is read first, so that it can be sent again.

    The body of a deletion means nothing (RFC 9110, 9.3.5), and would prevent that a redirect is followed.

    :raises SizeInvalid: when a manifest is too large.
    """
    if request.body is None or write.method == "DELETE":
        return _EMPTY
    if not isinstance(write.target, Manifest):
        return request.body
    try:
        data = await collect(request.body, MANIFEST_LIMIT)
    except Unavailable:
        raise SizeInvalid(f"manifest too large: at most {MANIFEST_LIMIT} bytes", status=413) from None
    return BytesBody(data, evolve(request.body.descriptor, size=len(data)))


def _scopes(write: Write, refused: Unauthorized) -> tuple[Scope, ...]:
    """Return the scopes that a token needs, with the actions that the registry's own challenge names."""
    bearer = find_challenge(refused.challenges, "Bearer")
    scopes = parse_scopes([bearer.get("scope")]) if bearer is not None else ()
    repository_scope = next((scope for scope in scopes if scope.is_repository), None)
    if repository_scope is None:
        return write.scopes
    return (evolve(write.scopes[0], actions=repository_scope.actions), *write.scopes[1:])


def _answer(result: WriteResult, prefix: str) -> Answer:
    descriptor = Descriptor(size=None if result.status == 204 else 0)
    return Answer(
        NoBody(descriptor),
        result.status,
        location=None if result.location is None else prefix + result.location,
        headers=result.headers,
        upstream_status=result.upstream_status,
    )


class VirtualHosts(NameVirtualHost):
    """One virtual host per registry, and the mirror's own host for its names and addresses.

    :param own: the mirror's own host.
    :param default: answers for unknown host names.
    """

    def __init__(self, hosts: Mapping[str, Resource], own: RegistryHost, default: Resource) -> None:
        super().__init__()
        for name, resource in hosts.items():
            self.addHost(name, resource)
        self._own = own
        self._default = default

    @property
    def registry(self) -> IRegistry:
        """The registry of the mirror's own host."""
        return self._own.registry

    def getChild(self, path: bytes, request: ServerRequest) -> IResource:
        return IResource(self._host(request).getChildWithDefault(path, request))

    def _host(self, request: ServerRequest) -> IResource:
        name = request.admitted_client.host_name if request.admitted_client else ""
        host = self.hosts.get(name)
        if host is None:
            host = self._own if is_address(name) else self._default
        return IResource(host)


class _PathLevel(Resource):
    """A segment of a host's paths; answers 404 for itself and for children that it does not have."""

    def getChild(self, path: bytes, request: ServerRequest) -> Resource:
        return _NOT_FOUND

    def render(self, request: ServerRequest) -> int:
        return _NOT_FOUND.render(request)


class RegistryHost(_PathLevel):
    """A virtual host for one registry.

    :param resources: those beside ``/v2/`` by their first path segment, such as the pages for people.
    :param by_path: further registries, each at ``/<name>/v2/``, on the mirror's own host.
    :param tokens: the token service of the host; None if it serves anonymously.
    :param writes: the registry that accepts writes; None if it is read-only.
    """

    def __init__(
        self,
        registry: IRegistry,
        resources: Mapping[str, Resource],
        by_path: Mapping[str, IRegistry] | None = None,
        tokens: ITokenService | None = None,
        writes: IWritableRegistry | None = None,
    ) -> None:
        super().__init__()
        self.registry = registry
        for name, other in (by_path or {}).items():
            self.putChild(name.encode(), _NamedPath(other))
        for name, resource in resources.items():
            self.putChild(name.encode(), resource)
        self.putChild(b"v2", V2Resource(registry, tokens=tokens, writes=writes))


class _NamedPath(_PathLevel):
    """``/<name>``, which has only ``v2`` below it."""

    def __init__(self, registry: IRegistry) -> None:
        super().__init__()
        self.putChild(b"v2", V2Resource(registry, depth=1))
