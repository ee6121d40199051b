"""A resource that is given only to who has asked by a name that is the mirror's."""

from __future__ import annotations

from collections.abc import Callable, Collection

from twisted.web.resource import IResource, Resource

from ...headers import first
from ...http.server_request import ServerRequest
from ...oci.errors import Denied
from ..respond import refuse
from ..site import host_name, is_address


class NamedHostOnly(Resource):
    """Refuses who has asked by another name.

    A page from anywhere may have its own name lead to the address at which operators reach the mirror; what
    their browsers then ask for comes with that name.

    :param names: gives the names by which it may be asked for at the moment, besides by any address.
    """

    isLeaf = True

    def __init__(self, resource: IResource, names: Callable[[], Collection[str]]) -> None:
        super().__init__()
        self._resource = resource
        self._names = names

    def render(self, request: ServerRequest) -> object:
        """What the resource has, or 403."""
        name = host_name(first(request.requestHeaders, "Host") or "")
        if is_address(name) or name in self._names():
            return self._resource.render(request)
        return refuse(
            request,
            Denied(
                "this host name is not one of the mirror's own: ask by an address, or have the operator add"
                " the name to 'operations_names'"
            ),
        )
