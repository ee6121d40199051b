"""Resources that are made when they are requested first, since most mirrors start without needing them."""

from __future__ import annotations

from collections.abc import Callable

from twisted.web.resource import IResource, Resource

from ..http.server_request import ServerRequest


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
