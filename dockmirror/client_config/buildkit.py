"""BuildKit on its own; the one within dockerd uses dockerd's mirrors.

A path of a mirror becomes the first part of the repository's name.  https://docs.docker.com/build/buildkit/configure/
"""

from __future__ import annotations

from .mirror_address import HUB, MirrorAddress, MirroredRegistry
from .snippet import ClientConfig, Snippet


def _registry(mirror: MirrorAddress, registry: MirroredRegistry) -> str:
    place = mirror.host if registry.name == HUB else mirror.by_path(registry)
    return f'[registry."{registry.name}"]\n  mirrors = ["{place}"]\n'


def _snippets(mirror: MirrorAddress) -> list[Snippet]:
    tables = [_registry(mirror, registry) for registry in mirror.registries]
    if mirror.plain:
        tables.append(f'[registry."{mirror.host}"]\n  http = true\n')
    create = "docker buildx create --use --buildkitd-config buildkitd.toml\n"
    file = Snippet("\n".join(tables), "/etc/buildkit/buildkitd.toml", whole=True)
    return [file, Snippet(create, name="buildx")]


BUILDKIT = ClientConfig("buildkit", "BuildKit", _snippets, "systemctl restart buildkit")
