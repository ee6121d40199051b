"""The well-known registries, with what the mirror has to know about each.

The table in docs/reference/registries.md gives the source of each fact.
"""

from __future__ import annotations

from typing import Literal

from attrs import evolve, field, frozen

ShortNaming = Literal["complete", "redirect", "off"]


@frozen
class KnownRegistry:
    """A well-known registry.

    :ivar name: the label of its virtual host.
    :ivar registry: its canonical name: the first part of image names, and its directory in the store.
    :ivar realms: origins of its token services on other hosts.
    :ivar aliases: further names that clients use for it.
    :ivar follows: the name of a registry whose configured url this one shares, unless it has its own.
    """

    name: str
    registry: str
    url: str
    realms: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    short_names: ShortNaming = field(default="off")
    follows: str | None = None


_HUB = KnownRegistry(
    "docker",
    "docker.io",
    "https://registry-1.docker.io",
    realms=("https://auth.docker.io",),
    aliases=("index.docker.io", "registry-1.docker.io"),
    short_names="complete",
)

KNOWN: tuple[KnownRegistry, ...] = (
    _HUB,
    KnownRegistry("quay", "quay.io", "https://quay.io"),
    KnownRegistry("gcr", "gcr.io", "https://gcr.io"),
    KnownRegistry("k8s-gcr", "k8s.gcr.io", "https://k8s.gcr.io"),
    KnownRegistry("k8s", "registry.k8s.io", "https://registry.k8s.io"),
    KnownRegistry("ghcr", "ghcr.io", "https://ghcr.io"),
    KnownRegistry("cloudsmith", "docker.cloudsmith.io", "https://docker.cloudsmith.io"),
    KnownRegistry("ecr", "public.ecr.aws", "https://public.ecr.aws"),
    evolve(_HUB, name="docker-staging", follows=_HUB.name),
    KnownRegistry("mcr", "mcr.microsoft.com", "https://mcr.microsoft.com"),
    KnownRegistry(
        "gitlab", "registry.gitlab.com", "https://registry.gitlab.com", realms=("https://gitlab.com",)
    ),
    KnownRegistry("nvcr", "nvcr.io", "https://nvcr.io", realms=("https://authn.nvidia.com",)),
    KnownRegistry(
        "elastic",
        "docker.elastic.co",
        "https://docker.elastic.co",
        realms=("https://docker-auth.elastic.co",),
    ),
)
