"""What clients may change: uploads, manifests, deletion; parsed and put to a registry."""

from __future__ import annotations

from attrs import evolve
from twisted.web.resource import Resource

from ..body.in_memory import BytesBody, NoBody, collect
from ..headers import lines
from ..http.server_request import ServerRequest
from ..interfaces import Answer, IBody, IWritableRegistry
from ..oci.challenge import find_challenge
from ..oci.descriptor import Descriptor
from ..oci.errors import RegistryError, SizeInvalid, Unauthorized, Unavailable
from ..oci.request import Manifest
from ..oci.scope import Scope, parse_scopes
from ..oci.write import Write, WriteResult, is_upload_path, parse_write
from .query import credentials, parameters
from .respond import respond

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
        write = parse_write(method, request.path, parameters(request), parts)
        write = evolve(write, credentials=credentials(request))
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
