"""The names of the mirror's hosts, of the registries behind it, and of images as users write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from urllib.parse import urlsplit

from attrs import frozen

from ..client_config.snippet import MirrorAddress, MirroredRegistry
from ..config.settings import Settings, UpstreamSettings
from ..interfaces import IRegistry
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid, RegistryError
from ..oci.pull_rule import PullRule, has_wildcards
from ..oci.request import Reference, Repository, Tag, complete_short_name, parse_reference, rewrite_prefix
from ..store.tag_history import Key
from ..system.networks import is_address, normalize_host, parse_address, port_suffix
from .endpoints import DEFAULT_PORT, Port, listening_ports

LOCAL_NAMES = ("localhost", "host.docker.internal", "host.containers.internal")
"""The names by which a machine, and the containers on it, reach a server on that machine."""
_HUB = "docker.io"
_LATEST = "latest"
Rename = Callable[[UpstreamSettings, Repository], Repository]
"""Returns another name of an upstream's repository."""


def registry_names(upstream: UpstreamSettings) -> list[str]:
    """Return the names of a registry, its canonical one first.

    The canonical name is the first part of repository paths, where ``_`` stands for the colon before a port.
    """
    netloc = urlsplit(upstream.url).netloc
    return list(
        dict.fromkeys([upstream.canonical, *upstream.aliases, *([] if upstream.registry else [netloc])])
    )


def find_upstream(registry: str, settings: Settings) -> UpstreamSettings | None:
    """Return the upstream that the mirror's own host asks for a registry, or None if it is not mirrored."""
    named = (each for each in settings.upstreams.values() if registry.lower() in registry_names(each))
    return next(named, None)


def mirrored_registries(settings: Settings) -> list[str]:
    """Return the canonical names of the registries of all upstreams."""
    return [upstream.canonical for upstream in settings.upstreams.values()]


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
    port = port_suffix(host)
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
    return MirroredRegistry(name, upstream.canonical, upstream.origin, host, upstream.prefix)


@frozen
class ImageName:
    """An image: the repository as the store names it, the registry first, and a tag or a digest."""

    repository: Repository
    reference: Reference

    def __str__(self) -> str:
        return f"{self.repository}{'@' if isinstance(self.reference, Digest) else ':'}{self.reference}"


def history_keys(image: ImageName, settings: Settings) -> Sequence[Key]:
    """Return the keys of a tag's histories, one for each upstream of its registry; a digest has none."""
    if not isinstance(image.reference, Tag):
        return ()
    repository, tag = Repository(image.repository.rest), image.reference
    return [
        (name, repository, tag)
        for name, upstream in settings.upstreams.items()
        if upstream.canonical == image.repository.first
    ]


def complete_name(upstream: UpstreamSettings, repository: Repository) -> Repository:
    """Return a client's name of a repository with the prefix of official images, by the settings."""
    return repository if upstream.short_names == "off" else complete_short_name(repository)


def name_at_upstream(upstream: UpstreamSettings, repository: Repository) -> Repository:
    """Return the upstream's name of a repository for a client's, by the settings.

    The store, the history, pins and lock files have the upstream's names.
    """
    return rewrite_prefix(complete_name(upstream, repository), upstream.rewrite)


def name_for_clients(upstream: UpstreamSettings, repository: Repository) -> Repository:
    """Return a client's name that leads to an upstream's name of a repository.

    It is the same name if it leads to itself, or if none leads there.
    """
    candidates = [
        repository,
        *(rewrite_prefix(repository, {new: old}) for old, new in upstream.rewrite.items()),
    ]
    leading = (each for each in candidates if name_at_upstream(upstream, each) == repository)
    return next(leading, repository)


def name_at_own_host(settings: Settings, repository: Repository) -> Repository:
    """Return the name by which the mirror's own host is asked for a repository that the store names.

    Both names begin with the registry.
    """
    upstream = find_upstream(repository.first, settings)
    if upstream is None or not repository.rest:
        return repository
    return Repository(f"{repository.first}/{name_for_clients(upstream, Repository(repository.rest))}")


def ask_by_store_names(registry: IRegistry, settings: Settings) -> IRegistry:
    """Return the registry of a mirror's own host, asked for repositories by the names in the store.

    :param settings: those of the mirror, which rewrites the names that it is asked for.
    """
    from ..middleware.names import NameRewrite  # commands that ask no mirror need none of it

    return NameRewrite(registry, partial(name_at_own_host, settings))


def parse_image_name(text: str, settings: Settings) -> ImageName:
    """Parse ``nginx``, ``docker.io/library/nginx:1.27`` or ``ghcr.io/o/r@sha256:…``.

    The repository is the one that a client's pull of this name leads to.  A digest wins over a tag, as with
    docker.

    :raises ValueError: when the text names no image.
    """
    return _parse_image(text, settings, name_at_upstream)


def parse_client_name(text: str, settings: Settings) -> ImageName:
    """Parse an image's name as ``parse_image_name`` does, and leave its beginning as clients see it.

    :raises ValueError: when the text names no image.
    """
    return _parse_image(text, settings, complete_name)


def pull_name(image: str, settings: Settings) -> str:
    """Return the name by which clients pull an image from the mirror's own host.

    :param image: the store's name of it.
    """
    path, _, _ = _split(image)
    return f"{name_at_own_host(settings, Repository(path))}{image[len(path) :]}"


def parse_image_pattern(text: str, settings: Settings) -> PullRule:
    """Parse ``ghcr.io/team/*``, or ``nginx:1.*``, which is a pattern of Docker Hub's images.

    A repository with wildcards matches names at the upstream; one without is a name.

    :raises ValueError: when the text is no pattern.
    """
    path, _, _ = _split(text)
    try:
        return PullRule.parse(f"{_complete(path, settings, name_at_upstream)}{text[len(path) :]}")
    except RegistryError as error:
        raise ValueError(f"{text}: {error}") from None


def complete_image_pattern(text: str, settings: Settings) -> str:
    """Return the glob of an image in the store and the history: ``nginx`` is ``docker.io/library/nginx``.

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


def _parse_image(text: str, settings: Settings, rename: Rename) -> ImageName:
    path, tag, digest = _split(text)
    with suppress(DigestInvalid):
        raise ValueError(f"a digest needs the name of a repository before it: NAME@{Digest.parse(text)}")
    try:
        repository = Repository.parse(_complete(path, settings, rename))
        return ImageName(repository, parse_reference(digest or (_LATEST if tag is None else tag)))
    except RegistryError as error:
        raise ValueError(f"{text}: {error}") from None


def _split(text: str) -> tuple[str, str | None, str]:
    """Return the repository of an image's name or pattern, its tag or None, and its digest or nothing."""
    named, _, digest = text.partition("@")
    path, colon, tag = named.rpartition(":")
    return (named, None, digest) if not colon or "/" in tag else (path, tag, digest)


def _complete(path: str, settings: Settings, rename: Rename) -> str:
    """Return a name or a pattern with its registry as the store has it.

    A pattern gets no other name, but the prefix of official images.

    :raises RegistryError: when it is neither a name nor a pattern.
    """
    registry, slash, rest = path.partition("/")
    is_registry = not set(".:*").isdisjoint(registry) or registry == "localhost"
    if "_" in registry:  # the history and the store write registry:5000 so
        is_registry |= registry in mirrored_registries(settings)
    if not slash or not is_registry:
        registry, rest = _HUB, path
    upstream = find_upstream(registry, settings)
    if upstream is None:
        return f"{registry.replace(':', '_')}/{rest}"
    if not has_wildcards(rest):
        rest = str(rename(upstream, Repository.parse(rest)))
    elif upstream.short_names != "off" and "/" not in rest and not rest.startswith("**"):
        rest = f"library/{rest}"
    return f"{upstream.canonical}/{rest}"
