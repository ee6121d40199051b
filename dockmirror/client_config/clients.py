"""The clients that are known, in the order in which people are told of them."""

from __future__ import annotations

from collections.abc import Mapping

from .buildkit import BUILDKIT
from .by_name import HELM, SKOPEO
from .containerd import CONTAINERD
from .docker import DESKTOP, DOCKER
from .gitlab import GITLAB
from .k3s import K3S
from .kaniko import KANIKO
from .podman import PODMAN
from .snippet import ClientConfig

CLIENTS: Mapping[str, ClientConfig] = {
    client.name: client
    for client in (
        DOCKER, DESKTOP, PODMAN, CONTAINERD, K3S, BUILDKIT, GITLAB, KANIKO, HELM, SKOPEO,
    )
}  # fmt: skip
