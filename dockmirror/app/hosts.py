"""What is served, of these settings: a virtual host for each upstream, and the mirror's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource

from ..archive.exporter import ArchiveExporter
from ..config.settings import Settings
from ..interfaces import IAccount, IRegistry
from ..middleware.names import NamespaceFilter
from ..middleware.registry_router import RegistryRouter
from ..oci.errors import Unsupported
from ..oci.reference import Reference, Repository
from ..web.export_resource import ExportResource
from ..web.filter import RefusalResource
from ..web.pages.resources import PageFactory
from ..web.pages.unknown_host import UnknownHost
from ..web.recent_requests import RecentRequests
from ..web.site import RegistryHost, VirtualHosts
from .cache import CacheParts
from .client_facing import registry_names
from .image_names import parse_image_name
from .public_url import own_names, public_mirror
from .stack import stack
from .telemetry import Telemetry
from .upstream_stack import AgentFor


def hosts(
    settings: Settings,
    clock: IReactorTime,
    agent_for: AgentFor,
    cache: CacheParts | None,
    watched: Telemetry,
    accounts: Mapping[str, IAccount],
    recent: RecentRequests,
    keys: Sequence[bytes] = (),
) -> VirtualHosts:
    """The virtual hosts, each a stack of one registry's, and the mirror's own in front of all of them.

    :param cache: where what is fetched is kept; without one the mirror is a relay.
    :param accounts: the mirror's own, by the name of the upstream.
    :param recent: what clients have asked for, for the pages.
    :param keys: see ``LocationSigner``.
    """
    pages = PageFactory(partial(public_mirror, settings), recent, clock)
    found: dict[str, RegistryHost] = {}
    own: dict[str, IRegistry] = {}
    for name, upstream in settings.upstreams.items():
        served = stack(name, upstream, settings, agent_for, clock, cache, watched, accounts.get(name), keys)
        found[settings.host(name)] = RegistryHost(
            served.virtual, pages.beside(registry_names(upstream)[0]), writes=served.writes
        )
        own = {**dict.fromkeys(registry_names(upstream), served.own), **own}
    every = RegistryRouter(own, own["docker.io"])
    root = RegistryHost(
        every,
        {**pages.beside(), **_archives(settings, every)},
        below={
            name: NamespaceFilter(it, [n for n, other in own.items() if other is it])
            for name, it in own.items()
        },
    )
    for name in own_names(settings):
        found[name] = root
    routes = {settings.host(name): upstream.url for name, upstream in settings.upstreams.items()}
    unknown = UnknownHost(pages.reached, routes)
    return VirtualHosts(found, root, found[settings.host(settings.default)] if settings.default else unknown)


def _archives(settings: Settings, registry: IRegistry) -> dict[str, Resource]:
    if not settings.export:
        return {
            "export": RefusalResource(
                Unsupported("no archives are given here: 'export' is not set", status=404)
            )
        }

    def parse(image: str) -> tuple[Repository, Reference]:
        name = parse_image_name(image, settings)
        return name.repository, name.reference

    return {"export": ExportResource(ArchiveExporter(registry), parse)}
