"""A resource that is given only to who has asked by a name that is the mirror's."""

from __future__ import annotations

from collections.abc import Collection

from twisted.web.resource import IResource, Resource

from ...headers import first
from ...oci.errors import Denied
from ..exchange import Request
from ..respond import refuse
from ..site import host_name, is_address


class Named(Resource):
    """Refuses who has asked by another name.

    A page from anywhere may have its own name lead to the address at which operators reach the mirror; what
    their browsers then ask for comes with that name.

    :param names: by which it may be asked, besides by any address.
    """

    isLeaf = True

    def __init__(self, resource: IResource, names: Collection[str]) -> None:
        super().__init__()
        self._resource = resource
        self._names = frozenset(names)

    def render(self, request: Request) -> object:
        """What the resource has, or 403."""
        name = host_name(first(request.requestHeaders, "Host") or "")
        if is_address(name) or name in self._names:
            return self._resource.render(request)
        return refuse(
            request,
            Denied(
                "this is told to who asks by an address, or by one of the mirror's own names (domain, names)"
            ),
        )
