"""What is served, of these settings: a virtual host for each upstream, and the mirror's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource

from ..archive.exported import Exports
from ..config.settings import Settings
from ..interfaces import IAccount, IRegistry
from ..oci.errors import Unsupported
from ..oci.reference import Reference, Repository
from ..registries.names import Namespace
from ..web.before import Refusal
from ..web.export import Export
from ..web.own import OwnHost
from ..web.pages.resources import Pages
from ..web.pages.unknown import Unknown
from ..web.recent import Recent
from ..web.site import Host, Hosts
from .cache import Cache
from .image_names import parse_name
from .mirrored import AgentFor
from .offered import registry_names
from .reached import own_names, reached
from .stack import stack
from .watched import Watched


def hosts(
    settings: Settings,
    clock: IReactorTime,
    agent_for: AgentFor,
    cache: Cache | None,
    watched: Watched,
    accounts: Mapping[str, IAccount],
    recent: Recent,
    keys: Sequence[bytes] = (),
) -> Hosts:
    """The virtual hosts, each a stack of one registry's, and the mirror's own in front of all of them.

    :param cache: where what is fetched is kept; without one the mirror is a relay.
    :param accounts: the mirror's own, by the name of the upstream.
    :param recent: what clients have asked for, for the pages.
    :param keys: see ``Seals``.
    """
    pages = Pages(partial(reached, settings), recent, clock)
    found: dict[str, Host] = {}
    own: dict[str, IRegistry] = {}
    for name, upstream in settings.upstreams.items():
        served = stack(name, upstream, settings, agent_for, clock, cache, watched, accounts.get(name), keys)
        found[settings.host(name)] = Host(
            served.virtual, pages.beside(registry_names(upstream)[0]), writes=served.writes
        )
        own = {**dict.fromkeys(registry_names(upstream), served.own), **own}
    every = OwnHost(own, own["docker.io"])
    root = Host(
        every,
        {**pages.beside(), **_archives(settings, every)},
        below={
            name: Namespace(it, [n for n, other in own.items() if other is it]) for name, it in own.items()
        },
    )
    for name in own_names(settings):
        found[name] = root
    routes = {settings.host(name): upstream.url for name, upstream in settings.upstreams.items()}
    unknown = Unknown(pages.reached, routes)
    return Hosts(found, root, found[settings.host(settings.default)] if settings.default else unknown)


def _archives(settings: Settings, registry: IRegistry) -> dict[str, Resource]:
    if not settings.export:
        return {"export": Refusal(Unsupported("no archives are given here: 'export' is not set", status=404))}

    def parse(image: str) -> tuple[Repository, Reference]:
        name = parse_name(image, settings)
        return name.repository, name.reference

    return {"export": Export(Exports(registry), parse)}
