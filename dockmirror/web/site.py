"""The tree of resources: who is let in, which host is meant, what lies on it."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.web.resource import IResource, Resource
from twisted.web.vhost import NameVirtualHost

from ..headers import lines
from ..http.access import NetworkAccess
from ..http.server_request import ServerRequest
from ..interfaces import IRegistry, IWritableRegistry
from ..oci.errors import Unsupported
from ..system.networks import parse_address
from .filter import RefusalResource, RequestFilter
from .registry_api import V2Resource


class NetworkFilter(RequestFilter):
    """In front of everything: only those whose network is served get any further."""

    def __init__(self, resource: IResource, access: NetworkAccess) -> None:
        super().__init__(resource)
        self._access = access

    def check(self, request: ServerRequest) -> None:
        """See ``RequestFilter``; notes who is asking, and who was let in."""
        peer = getattr(request.getClientAddress(), "host", None)
        request.peer = self._access.client(
            peer, request.isSecure(), lambda field: lines(request.requestHeaders, field)
        )
        self._access.check(request.peer)
        request.admitted_client = request.peer


class VirtualHosts(NameVirtualHost):
    """One virtual host for each registry, and the mirror's own for every name and address of its own.

    :param own: what lies on the mirror's own host.
    :param default: what lies on a host that is not known.
    """

    def __init__(self, hosts: Mapping[str, Resource], own: RegistryHost, default: Resource) -> None:
        super().__init__()
        for name, resource in hosts.items():
            self.addHost(name, resource)
        self._own = own
        self._default = default

    @property
    def registry(self) -> IRegistry:
        """What lies on the mirror's own host."""
        return self._own.registry

    def getChild(self, path: bytes, request: ServerRequest) -> IResource:
        """The child of the host that is meant."""
        return IResource(self._host(request).getChildWithDefault(path, request))

    def _host(self, request: ServerRequest) -> IResource:
        name = normalize_host(request.admitted_client.host if request.admitted_client else "")
        host = self.hosts.get(name)
        if host is None:
            host = self._own if is_address(name) else self._default
        return IResource(host)


def normalize_host(host: str) -> str:
    """The name in a ``Host``: in lower case, without port, brackets and the dot at its end."""
    name, colon, port = host.strip().lower().rpartition(":")
    if not colon or "]" in port:
        name = host.strip().lower()
    return name.removeprefix("[").removesuffix("]").rstrip(".")


def is_address(name: str) -> bool:
    """Whether a host is called by its address."""
    try:
        parse_address(name)
    except ValueError:
        return False
    return True


class _PathLevel(Resource):
    """A level of a host's paths."""

    def getChild(self, path: bytes, request: ServerRequest) -> Resource:
        """What was not put here is not there."""
        return RefusalResource(
            Unsupported("there is nothing here: a registry's paths begin with /v2/", status=404)
        )


class RegistryHost(_PathLevel):
    """A virtual host: one registry.

    :param beside: what else lies there, by the first part of its path: the pages for people.
    :param below: further registries by path, ``/<name>/v2/``: on the mirror's own host.
    :param writes: the registry as it is written to, where it may be.
    """

    def __init__(
        self,
        registry: IRegistry,
        beside: Mapping[str, Resource],
        below: Mapping[str, IRegistry] | None = None,
        writes: IWritableRegistry | None = None,
    ) -> None:
        super().__init__()
        self.registry = registry
        for name, other in (below or {}).items():
            self.putChild(name.encode(), _NamedPath(other))
        for name, resource in beside.items():
            self.putChild(name.encode(), resource)
        self.putChild(b"v2", V2Resource(registry, writes=writes))


class _NamedPath(_PathLevel):
    """``/<name>``: has nothing but a ``v2``."""

    def __init__(self, registry: IRegistry) -> None:
        super().__init__()
        self.putChild(b"v2", V2Resource(registry, depth=1))
