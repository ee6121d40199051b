"""What is served, of these settings: a virtual host for each upstream, and the mirror's own."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.interfaces import IReactorTime

from .cache import Cache
from .interfaces import IAccount, IRegistry
from .metrics import Metrics
from .mirrored import AgentFor
from .names import Namespace
from .offered import registry_names
from .settings import Settings
from .stack import stack
from .web.own import OwnHost
from .web.site import Host, Hosts, Routes


def hosts(
    settings: Settings,
    clock: IReactorTime,
    agent_for: AgentFor,
    cache: Cache | None,
    metrics: Metrics,
    accounts: Mapping[str, IAccount],
) -> Hosts:
    """The virtual hosts, each a stack of one registry's, and the mirror's own in front of all of them.

    :param cache: where what is fetched is kept; without one the mirror is a relay.
    :param accounts: the mirror's own, by the name of the upstream.
    """
    found: dict[str, Host] = {}
    own: dict[str, IRegistry] = {}
    for name, upstream in settings.upstreams.items():
        served = stack(name, upstream, settings, agent_for, clock, cache, metrics, accounts.get(name))
        text = f"{upstream.url} is mirrored here: docker pull {settings.host(name)}/IMAGE\n"
        found[settings.host(name)] = Host(served.virtual, text)
        own = {**dict.fromkeys(registry_names(upstream), served.own), **own}
    root = Host(
        OwnHost(own, own["docker.io"]),
        _own_text(settings),
        below={
            name: Namespace(it, [n for n, other in own.items() if other is it]) for name, it in own.items()
        },
    )
    for name in (settings.domain, "localhost", *settings.names):
        found[name] = root
    routes = Routes({settings.host(name): upstream.url for name, upstream in settings.upstreams.items()})
    return Hosts(found, root, found[settings.host(settings.default)] if settings.default else routes)


def _own_text(settings: Settings) -> str:
    rows = "".join(
        f"{settings.host(name)}  {upstream.url}\n" for name, upstream in settings.upstreams.items()
    )
    return f"This is a mirror of container registries.\n\n{rows}"
