"""What stands in front of a resource, and lets only some requests get there."""

from __future__ import annotations

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
