"""The names of the mirror's hosts, of the registries behind it, and of images as users write them."""

from __future__ import annotations

from urllib.parse import urlsplit

from attrs import frozen

from ..client_config.snippet import MirrorAddress, MirroredRegistry
from ..config.settings import Settings, UpstreamSettings
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.pull_rule import PullRule, has_wildcards
from ..oci.reference import Reference, Repository, parse_reference
from ..system.networks import is_address, normalize_host, parse_address
from .endpoints import DEFAULT_PORT, Port, listening_ports

LOCAL_NAMES = ("localhost", "host.docker.internal", "host.containers.internal")
"""The names by which a machine, and the containers on it, reach a server on that machine."""
_HUB = "docker.io"
_LATEST = "latest"


def registry_names(upstream: UpstreamSettings) -> list[str]:
    """Return the names of a registry, its canonical one first.

    The canonical name is the first part of repository paths, where ``_`` stands for the colon before a port.
    """
    netloc = urlsplit(upstream.url).netloc
    return list(
        dict.fromkeys([upstream.canonical, *upstream.aliases, *([] if upstream.registry else [netloc])])
    )


def canonical_registry(registry: str, settings: Settings) -> str:
    """Return the name under which the store keeps a registry's content."""
    for upstream in settings.upstreams.values():
        names = registry_names(upstream)
        if registry.lower() in names:
            return names[0]
    return registry.replace(":", "_")


def own_host_names(settings: Settings) -> tuple[str, ...]:
    """Return the names of the mirror's own host, which also answers to every address of the machine."""
    return (settings.domain, *LOCAL_NAMES, *settings.names)


def operations_host_names(settings: Settings) -> tuple[str, ...]:
    """Return the names by which clients may address the operations endpoint."""
    return (*own_host_names(settings), *settings.operations_names)


def certificate_names(settings: Settings) -> tuple[str, ...]:
    """Return every host name by which other machines may address the mirror."""
    virtual = [settings.host(name) for name in settings.upstreams]
    return tuple(dict.fromkeys([settings.domain, *settings.names, *virtual]))


def mirror_address(settings: Settings, scheme: str, host: str) -> MirrorAddress:
    """Describe the mirror as a client that reached it at *host* should configure it.

    Names below ``localhost`` resolve on the mirror's machine only, so only a client that used one gets them.

    :param host: one of the mirror's hosts, with the port unless it is the scheme's default.
    """
    name = normalize_host(host)
    port = _port(host)
    own = host if is_address(name) or name in own_host_names(settings) else f"{settings.domain}{port}"
    virtual = {settings.host(each) for each in settings.upstreams}
    has_virtual_hosts = settings.domain != "localhost" or name in virtual
    registries: dict[str, MirroredRegistry] = {}
    for key, upstream in settings.upstreams.items():
        registry = _registry(upstream, f"{settings.host(key)}{port}" if has_virtual_hosts else "")
        registries.setdefault(registry.name, registry)
    return MirrorAddress(scheme, own, tuple(registries.values()), settings.export, settings.images)


def setup_address(settings: Settings, scheme: str, host: str) -> MirrorAddress:
    """Describe the mirror by the settings alone, for scripts that people run as root.

    With TLS the host is the one of the mirror's names that the client used, or else ``domain``, with the port
    that the mirror listens on for TLS; if it listens on none, a proxy in front does so on the default port.
    Without TLS only the mirror's own machine may ask, and gets the address of a port there.

    :param scheme: by which the client reached the mirror.
    :param host: the host that the client asked for, which decides only between names of the settings.
    """
    name = normalize_host(host)
    own = name if name in settings.names else settings.domain
    ports = [port for port in listening_ports(settings) if port.scheme == scheme]
    if scheme == "https":
        return mirror_address(settings, scheme, ports[0].netloc(own) if ports else own)
    local = (port for port in ports if parse_address(port.local_address).is_loopback)
    port = next(local, Port("http", DEFAULT_PORT))
    return mirror_address(settings, scheme, port.netloc(port.local_host))


def _registry(upstream: UpstreamSettings, host: str) -> MirroredRegistry:
    name = upstream.registry or urlsplit(upstream.url).netloc
    return MirroredRegistry(name, registry_names(upstream)[0], upstream.url, host)


def _port(host: str) -> str:
    _, colon, port = host.rpartition(":")
    return f":{port}" if colon and port.isdigit() else ""


@frozen
class ImageName:
    """An image: the repository as the store names it, the registry first, and a tag or a digest."""

    repository: Repository
    reference: Reference

    def __str__(self) -> str:
        return f"{self.repository}{'@' if isinstance(self.reference, Digest) else ':'}{self.reference}"


def parse_image_name(text: str, settings: Settings) -> ImageName:
    """Parse ``nginx``, ``docker.io/library/nginx:1.27`` or ``ghcr.io/o/r@sha256:…``.

    A digest wins over a tag, as with docker.

    :raises ValueError: when the text names no image.
    """
    named, _, digest = text.partition("@")
    path, colon, tag = named.rpartition(":")
    if not colon or "/" in tag:
        path, tag = named, _LATEST
    try:
        return ImageName(_repository(path, settings), parse_reference(digest or tag))
    except RegistryError as error:
        raise ValueError(f"{text}: {error}") from None


def parse_image_pattern(text: str, settings: Settings) -> PullRule:
    """Parse ``ghcr.io/team/*``, or ``nginx:1.*``, which is a pattern of Docker Hub's images."""
    return PullRule.parse(_complete(text, settings))


def complete_image_pattern(text: str, settings: Settings) -> str:
    """Return the glob by which the history finds an image: ``nginx`` is ``docker.io/library/nginx``.

    A pattern with wildcards is complete.

    :raises ValueError: when the text names no image, or names one by its digest.
    """
    if not text or has_wildcards(text) or "[" in text:
        return text
    if "@" in text:
        raise ValueError("expected a name without a digest")
    name = parse_image_name(text, settings)
    has_tag = ":" in text.rpartition("/")[2]
    return str(name) if has_tag else str(name.repository)


def _repository(path: str, settings: Settings) -> Repository:
    return Repository.parse(_complete(path, settings))


def _complete(path: str, settings: Settings) -> str:
    """Return a name or a pattern with its registry, and with the prefix of Docker Hub's own images."""
    registry, slash, rest = path.partition("/")
    is_registry = not set(".:*").isdisjoint(registry) or registry == "localhost"
    if "_" in registry:  # the history and the store write registry:5000 so
        is_registry |= any(registry == registry_names(each)[0] for each in settings.upstreams.values())
    if not slash or not is_registry:
        registry, rest = _HUB, path
    registry = canonical_registry(registry, settings)
    if registry == _HUB and "/" not in rest and not rest.startswith("**"):
        rest = f"library/{rest}"
    return f"{registry}/{rest}"
