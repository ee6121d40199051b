"""Clients that are given the mirror's name with the image's: nothing is configured."""

from __future__ import annotations

from .mirror_address import MirrorAddress, MirroredRegistry
from .snippet import ClientConfig, Snippet


def _place(mirror: MirrorAddress, registry: MirroredRegistry) -> str:
    return registry.host or mirror.by_path(registry)


def _helm(mirror: MirrorAddress) -> list[Snippet]:
    plain = "--plain-http " if mirror.plain else ""
    place = _place(mirror, mirror.other)
    return [
        Snippet(f"helm pull {plain}oci://{place}/OWNER/CHART\noras pull {plain}{place}/OWNER/ARTIFACT:TAG\n")
    ]


def _skopeo(mirror: MirrorAddress) -> list[Snippet]:
    place, path = _place(mirror, mirror.registries[0]), mirror.by_path(mirror.registries[0])
    lines = [
        f"skopeo inspect {'--tls-verify=false ' * mirror.plain}docker://{place}/IMAGE\n",
        f"crane manifest {'--insecure ' * mirror.plain}{path}/library/IMAGE\n",
        f"curl -s {mirror.scheme}://{mirror.host}/v2/{mirror.registries[0].path}/library/IMAGE/manifests/TAG\n",
    ]
    return [Snippet("".join(lines))]


HELM = ClientConfig("helm", "Helm, oras", _helm)
SKOPEO = ClientConfig("skopeo", "skopeo, crane, curl", _skopeo)
