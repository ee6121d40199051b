"""Filters in front of a site: each may answer or reject a request before it reaches a resource."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.web.resource import IResource, Resource
from zope.interface import implementer

from ..headers import lines
from ..http.accel import accepts_accel
from ..http.server_request import ServerRequest
from ..oci.errors import RegistryError, Unsupported
from ..oci.header_fields import CDN_LOOP, parse_hops
from .respond import refuse, render_or_refuse


@implementer(IResource)
class RequestFilter:
    """Base class for filters that may reject a request before it reaches a resource."""

    isLeaf = False

    def __init__(self, resource: IResource) -> None:
        self.resource = resource

    def check(self, request: ServerRequest) -> IResource | None:
        """Return a resource that answers instead, or None to pass the request on.

        :raises RegistryError: to reject the request; the error is the response.
        """
        raise NotImplementedError

    def getChildWithDefault(self, name: bytes, request: ServerRequest) -> IResource:
        """Return the resource that answers: the filtered one, its replacement, or the rejection."""
        try:
            replacement = self.check(request)
        except RegistryError as error:
            return RefusalResource(error)
        if replacement is not None or self.resource.isLeaf:
            return replacement or self.resource
        return IResource(self.resource.getChildWithDefault(name, request))

    def putChild(self, path: bytes, child: IResource) -> None:
        raise NotImplementedError("children belong to a host")

    def render(self, request: ServerRequest) -> int:
        """Answer 404; never called, since every path has a segment."""
        return refuse(request, Unsupported(status=404))


class RefusalResource(Resource):
    """Answers every request with one error."""

    isLeaf = True

    def __init__(self, error: RegistryError) -> None:
        super().__init__()
        self._error = error

    def render(self, request: ServerRequest) -> int:
        return refuse(request, self._error)


class LoopFilter(RequestFilter):
    """Rejects requests that this mirror has sent itself, and records which mirrors the others have passed.

    :param mirror_id: the identifier of this mirror.
    """

    def __init__(self, resource: IResource, mirror_id: str) -> None:
        super().__init__(resource)
        self._mirror_id = mirror_id

    def check(self, request: ServerRequest) -> None:
        """:raises Unsupported: with status 508 (RFC 5842, 7.2)."""
        request.hops = parse_hops(lines(request.requestHeaders, CDN_LOOP))
        if any(hop.mirror == self._mirror_id for hop in request.hops):
            raise Unsupported(
                "loop: this mirror got its own request back; the 'url' of an upstream leads to the mirror"
                " that asked it",
                status=508,
            )


class AccelFilter(RequestFilter):
    """Marks requests whose files the proxy in front may send itself; the client must have been let in."""

    def check(self, request: ServerRequest) -> None:
        client = request.admitted_client
        request.may_accelerate = (
            client is not None and client.is_proxied and accepts_accel(request.method, request.requestHeaders)
        )


class HealthRoute(RequestFilter):
    """Answers ``/healthz`` on every host, and passes other requests on.

    Load balancers ask from arbitrary addresses and without one of the mirror's host names.  The answer says
    no more than a refusal would, so no access rule comes before it.
    """

    def __init__(self, resource: IResource) -> None:
        super().__init__(resource)
        self._health = HealthResource()

    def check(self, request: ServerRequest) -> IResource | None:
        return IResource(self._health) if request.path == b"/healthz" else None


class HealthResource(Resource):
    """Answers ``ok`` as long as the process answers at all."""

    isLeaf = True

    def render_GET(self, request: ServerRequest) -> bytes:
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        return b"ok"


_PATH = b"/.well-known/acme-challenge/"
FindProof = Callable[[str], Coroutine[Any, Any, bytes | None]]


class AcmeChallengeRoute(RequestFilter):
    """Answers HTTP-01 challenges (RFC 8555, 8.3) on every host, and passes other requests on.

    Certificate authorities do not publish the addresses that they ask from, so no access rule comes first.

    :param proof: returns the key authorization for a token, or None for an unknown token.
    :param find_shared: the same for the challenges of other mirrors; None without any.
    """

    def __init__(
        self,
        resource: IResource,
        proof: Callable[[str], bytes | None],
        find_shared: FindProof | None = None,
    ) -> None:
        super().__init__(resource)
        self._proof = proof
        self._find_shared = find_shared

    def check(self, request: ServerRequest) -> IResource | None:
        if not request.path.startswith(_PATH):
            return None
        token = request.path.removeprefix(_PATH).decode("ascii", "replace")
        proof = self._proof(token)
        if proof is not None:
            return IResource(KeyAuthorization(proof))
        return None if self._find_shared is None else IResource(SharedProof(token, self._find_shared))


class KeyAuthorization(Resource):
    """Sends the key authorization of a challenge."""

    isLeaf = True

    def __init__(self, proof: bytes) -> None:
        super().__init__()
        self._proof = proof

    def render_GET(self, request: ServerRequest) -> bytes:
        request.setHeader("Content-Type", "application/octet-stream")
        return self._proof


class SharedProof(Resource):
    """Sends the key authorization of another mirror's challenge, or answers 404."""

    isLeaf = True

    def __init__(self, token: str, find: FindProof) -> None:
        super().__init__()
        self._token = token
        self._find = find

    def render_GET(self, request: ServerRequest) -> int:
        return render_or_refuse(request, self._answer(request))

    async def _answer(self, request: ServerRequest) -> None:
        proof = await self._find(self._token)
        if proof is None:
            raise Unsupported("no challenge has this token", status=404)
        request.setHeader("Content-Type", "application/octet-stream")
        request.write(proof)
        request.finish()
