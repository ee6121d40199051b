"""The mirror as a client has reached it."""

from __future__ import annotations

from urllib.parse import urlsplit

from ..client_config.mirror_address import MirrorAddress, MirroredRegistry
from ..config.settings import Settings, UpstreamSettings
from ..web.site import host_name, is_address
from .client_facing import registry_names

OF_THIS_MACHINE = ("localhost", "host.docker.internal", "host.containers.internal")
"""By which a machine, and the containers on it, reach what runs there."""


def own_names(settings: Settings) -> tuple[str, ...]:
    """The names of the mirror's own host; its addresses are others."""
    return (settings.domain, *OF_THIS_MACHINE, *settings.names)


def operations_names(settings: Settings) -> tuple[str, ...]:
    """The names by which the operators' endpoint may be asked."""
    return (*own_names(settings), *settings.operations_names)


def public_mirror(settings: Settings, scheme: str, host: str) -> MirrorAddress:
    """The mirror behind that address.

    The names below ``localhost`` lead nowhere for most clients: they are told only to who has come by one.

    :param host: one of its hosts, with the port where it is not the scheme's.
    """
    name = host_name(host)
    port = _port(host)
    own = host if is_address(name) or name in own_names(settings) else f"{settings.domain}{port}"
    virtual = {settings.host(each) for each in settings.upstreams}
    named = settings.domain != "localhost" or name in virtual
    registries: dict[str, MirroredRegistry] = {}
    for key, upstream in settings.upstreams.items():
        registry = _registry(upstream, f"{settings.host(key)}{port}" if named else "")
        registries.setdefault(registry.name, registry)
    return MirrorAddress(scheme, own, tuple(registries.values()), settings.export)


def _registry(upstream: UpstreamSettings, host: str) -> MirroredRegistry:
    name = upstream.registry or urlsplit(upstream.url).netloc
    return MirroredRegistry(name, registry_names(upstream)[0], upstream.url, host)


def _port(host: str) -> str:
    _, colon, port = host.rpartition(":")
    return f":{port}" if colon and port.isdigit() else ""
