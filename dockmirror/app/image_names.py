"""Images as users name them."""

from __future__ import annotations

from attrs import frozen

from ..config.settings import Settings
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.reference import Reference, Repository, parse_reference
from .client_facing import registry_names

_HUB = "docker.io"
_LATEST = "latest"


@frozen
class ImageName:
    """An image: the repository as the store names it, the registry first."""

    repository: Repository
    reference: Reference

    def __str__(self) -> str:
        return f"{self.repository}{'@' if isinstance(self.reference, Digest) else ':'}{self.reference}"


def parse_image_name(text: str, settings: Settings) -> ImageName:
    """``nginx``, ``docker.io/library/nginx:1.27``, ``ghcr.io/o/r@sha256:…``.

    Of a tag and a digest the digest counts, as with docker.

    :raises ValueError: when it is none.
    """
    named, _, digest = text.partition("@")
    path, colon, tag = named.rpartition(":")
    if not colon or "/" in tag:
        path, tag = named, _LATEST
    try:
        return ImageName(_repository(path, settings), parse_reference(digest or tag))
    except RegistryError as error:
        raise ValueError(f"{text}: {error}") from None


def canonical(registry: str, settings: Settings) -> str:
    """What the store calls a registry."""
    for upstream in settings.upstreams.values():
        names = registry_names(upstream)
        if registry.lower() in names:
            return names[0]
    return registry.replace(":", "_")


def _repository(path: str, settings: Settings) -> Repository:
    registry, slash, rest = path.partition("/")
    if not slash or not (set(".:") & set(registry) or registry == "localhost"):
        registry, rest = _HUB, path
    registry = canonical(registry, settings)
    if registry == _HUB and "/" not in rest:
        rest = f"library/{rest}"
    return Repository.parse(f"{registry}/{rest}")
