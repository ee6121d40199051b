"""What stands in front of a resource, and lets only some requests get there."""

from __future__ import annotations

from collections.abc import Callable

from twisted.web.resource import IResource, Resource
from zope.interface import implementer

from ..http.server_request import ServerRequest
from ..oci.errors import RegistryError, Unsupported
from .respond import refuse


@implementer(IResource)
class RequestFilter:
    """In front of a resource: what ``admit`` raises is the answer."""

    isLeaf = False

    def __init__(self, resource: IResource) -> None:
        self.resource = resource

    def check(self, request: ServerRequest) -> IResource | None:
        """What answers in place of the resource, if anything does.

        :raises RegistryError: when the request is to get no further.
        """
        raise NotImplementedError

    def getChildWithDefault(self, name: bytes, request: ServerRequest) -> IResource:
        """What lies behind, or the refusal."""
        try:
            instead = self.check(request)
        except RegistryError as error:
            return RefusalResource(error)
        if instead is not None or self.resource.isLeaf:
            return instead or self.resource
        return IResource(self.resource.getChildWithDefault(name, request))

    def putChild(self, path: bytes, child: IResource) -> None:
        """:raises NotImplementedError: always."""
        raise NotImplementedError("children belong to a host")

    def render(self, request: ServerRequest) -> int:
        """Never reached: every path has a segment."""
        return refuse(request, Unsupported(status=404))


class RefusalResource(Resource):
    """Says no, whatever is asked."""

    isLeaf = True

    def __init__(self, error: RegistryError) -> None:
        super().__init__()
        self._error = error

    def render(self, request: ServerRequest) -> int:
        """Answers with the error."""
        return refuse(request, self._error)


class HealthRoute(RequestFilter):
    """Answers ``/healthz`` on every host and to everybody, and leaves the rest to another resource.

    A load balancer asks from an address that is nobody's and names no host of ours.  It is told no more than
    that somebody is there, which a refusal would tell as well: so no rule of access comes before it.
    """

    def __init__(self, resource: IResource) -> None:
        super().__init__(resource)
        self._health = HealthResource()

    def check(self, request: ServerRequest) -> IResource | None:
        """Health, or what lies behind."""
        return IResource(self._health) if request.path == b"/healthz" else None


class HealthResource(Resource):
    """Says ``ok``, and nothing else, as long as anything can be said."""

    isLeaf = True

    def render_GET(self, request: ServerRequest) -> bytes:
        """Two letters."""
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        return b"ok"


_PATH = b"/.well-known/acme-challenge/"


class AcmeChallengeRoute(RequestFilter):
    """Answers for known tokens on every host and to everybody, and leaves the rest to another resource.

    Authorities say from where they ask to nobody, so that no rule of access can come before it.

    :param proof: what belongs to a token; None for one that is not known.
    """

    def __init__(self, resource: IResource, proof: Callable[[str], bytes | None]) -> None:
        super().__init__(resource)
        self._proof = proof

    def check(self, request: ServerRequest) -> IResource | None:
        """The proof, or what lies behind."""
        if not request.path.startswith(_PATH):
            return None
        proof = self._proof(request.path.removeprefix(_PATH).decode("ascii", "replace"))
        return None if proof is None else IResource(KeyAuthorization(proof))


class KeyAuthorization(Resource):
    """Says it."""

    isLeaf = True

    def __init__(self, proof: bytes) -> None:
        super().__init__()
        self._proof = proof

    def render_GET(self, request: ServerRequest) -> bytes:
        """As it is."""
        request.setHeader("Content-Type", "application/octet-stream")
        return self._proof
