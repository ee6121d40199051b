"""dockerd, and Docker Desktop, whose dockerd runs in a virtual machine.

``registry-mirrors`` is for Docker Hub only; dockerd speaks plain HTTP to 127.0.0.0/8 by itself, and to a
mirror whose entry begins with ``http://``.  The BuildKit within it does so only where ``insecure-registries``
has ``http://`` before the host, which dockerd itself passes over with a warning in its log.
https://docs.docker.com/reference/cli/dockerd/
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .mirror_address import MirrorAddress
from .snippet import ClientConfig, Snippet

_DESKTOP = "host.docker.internal"
"""By which Docker Desktop's virtual machine reaches the machine that it runs on."""


def daemon(mirror: MirrorAddress) -> dict[str, list[str]]:
    """What dockerd has to be told."""
    told = {"registry-mirrors": [mirror.url]}
    if mirror.plain and not mirror.loopback:
        hosts = [mirror.host, *(each.host for each in mirror.registries if each.host)]
        told["insecure-registries"] = [f"http://{host}" for host in dict.fromkeys(hosts)]
    return told


def merged(there: Mapping[str, Any], mirror: MirrorAddress) -> dict[str, Any]:
    """A ``daemon.json`` with what dockerd has to be told, and all that it says already.

    :raises ValueError: when a list in it is none.
    """
    result = dict(there)
    for key, values in daemon(mirror).items():
        before = there.get(key, [])
        if not isinstance(before, list):
            raise ValueError(f"expected a list as {key!r}")
        result[key] = [*values, *(each for each in before if each not in values)]
    return result


def _snippets(mirror: MirrorAddress) -> list[Snippet]:
    text = json.dumps(daemon(mirror), indent=2) + "\n"
    return [Snippet(text, "/etc/docker/daemon.json", comment="", whole=True), _by_name(mirror)]


def _by_name(mirror: MirrorAddress) -> Snippet:
    registry = mirror.other
    places = [mirror.by_path(registry), *([registry.host] if registry.host else [])]
    return Snippet("".join(f"docker pull {place}/{registry.placeholder}\n" for place in places), name="names")


def _desktop(mirror: MirrorAddress) -> list[Snippet]:
    reached = mirror.at(_DESKTOP) if mirror.loopback else mirror
    return [Snippet(json.dumps(daemon(reached), indent=2) + "\n", comment="")]


DOCKER = ClientConfig("docker", "Docker", _snippets, "systemctl restart docker")
DESKTOP = ClientConfig("desktop", "Docker Desktop", _desktop)
