"""podman, buildah and CRI-O: containers-registries.conf(5), as a drop-in."""

from __future__ import annotations

from .mirror_address import MirrorAddress, MirroredRegistry
from .snippet import ClientConfig, Snippet

_FILE = "/etc/containers/registries.conf.d/50-dockmirror.conf"


def _registry(mirror: MirrorAddress, registry: MirroredRegistry) -> str:
    lines = [
        "[[registry]]", f'location = "{registry.name}"', "",
        "[[registry.mirror]]", f'location = "{mirror.by_path(registry)}"',
    ]  # fmt: skip
    return "\n".join([*lines, *(["insecure = true"] if mirror.plain else []), ""])


def _snippets(mirror: MirrorAddress) -> list[Snippet]:
    text = "\n".join(_registry(mirror, registry) for registry in mirror.registries)
    return [Snippet(text, _FILE, whole=True)]


PODMAN = ClientConfig("podman", "Podman, Buildah, CRI-O", _snippets)
