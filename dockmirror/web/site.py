"""The resource tree: access by network, the host that a request names, and the paths of a host."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.web.resource import IResource, Resource
from twisted.web.vhost import NameVirtualHost

from ..headers import lines_by_name
from ..http.server_request import ServerRequest
from ..interfaces import IRegistry, ITokenService, IWritableRegistry
from ..oci.errors import Unsupported
from ..system.networks import NetworkAccess, is_address, normalize_host
from .filter import RefusalResource, RequestFilter
from .registry_api import V2Resource


class NetworkFilter(RequestFilter):
    """Lets only clients of the allowed networks pass, and records the client in the request."""

    def __init__(self, resource: IResource, access: NetworkAccess) -> None:
        super().__init__(resource)
        self._access = access

    def check(self, request: ServerRequest) -> None:
        peer = getattr(request.getClientAddress(), "host", None)
        headers = lines_by_name(request.requestHeaders)
        request.peer = self._access.identify_client(peer, request.isSecure(), headers)
        self._access.check(request.peer)
        request.admitted_client = request.peer


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
        name = normalize_host(request.admitted_client.host if request.admitted_client else "")
        host = self.hosts.get(name)
        if host is None:
            host = self._own if is_address(name) else self._default
        return IResource(host)


class _PathLevel(Resource):
    """A segment of a host's paths; answers 404 for children that it does not have."""

    def getChild(self, path: bytes, request: ServerRequest) -> Resource:
        return RefusalResource(Unsupported("not found; registry paths begin with /v2/", status=404))


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
