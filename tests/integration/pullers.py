"""Each way in which people's clients come to a mirror of Docker Hub, from a client that has nothing yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .parts.clients import Containerd, Dockerd
from .parts.images import Image
from .parts.machine import Machine
from .parts.mirror import Mirror
from .pulls import buildah_pulls, ctr_pulls, docker_pulls, podman_pulls, skopeo_pulls, succeeded


@dataclass(frozen=True)
class Clients:
    """The clients of one mirror; dockerd has its own host as ``registry-mirrors``."""

    mirror: Mirror
    new_machine: Callable[[], Machine]
    dockerd: Dockerd
    containerd: Containerd


def _skopeo(clients: Clients, name: str, image: Image) -> None:
    for reference in (":latest", f"@{image.digest}"):
        skopeo_pulls(clients.new_machine(), f"{clients.mirror.host('docker')}/{name}{reference}", image)


def _podman(clients: Clients, name: str, image: Image) -> None:
    for reference in (":latest", f"@{image.digest}"):
        podman_pulls(clients.new_machine(), f"{clients.mirror.host('docker')}/{name}{reference}", image)


def _buildah(clients: Clients, name: str, image: Image) -> None:
    buildah_pulls(clients.new_machine(), f"{clients.mirror.host('docker')}/{name}:latest", image)


def _containerd(clients: Clients, name: str, image: Image) -> None:
    reference = f"{clients.mirror.host('docker')}/{name}:latest"
    ctr_pulls(clients.containerd, reference, image, "--plain-http")
    succeeded(clients.containerd.ctr("images", "rm", "--sync", reference))


def _containerd_ns(clients: Clients, name: str, image: Image) -> None:
    """The mirror's own host, which ``hosts.toml`` names, is told the registry by ``ns``."""
    host = f'[host."http://{clients.mirror.host()}"]\ncapabilities = ["pull", "resolve"]\n'
    hosts = clients.containerd.hosts("docker.io", host)
    reference = f"docker.io/{name}:latest"
    ctr_pulls(clients.containerd, reference, image, f"--hosts-dir={hosts}")
    succeeded(clients.containerd.ctr("images", "rm", "--sync", reference))


def _dockerd(clients: Clients, name: str, image: Image) -> None:
    _docker(clients, f"{clients.mirror.host('docker')}/{name}:latest", image)


def _dockerd_path(clients: Clients, name: str, image: Image) -> None:
    _docker(clients, f"{clients.mirror.host()}/docker.io/{name}:latest", image)


def _dockerd_mirror(clients: Clients, name: str, image: Image) -> None:
    _docker(clients, f"{name}:latest", image)


def _docker(clients: Clients, reference: str, image: Image) -> None:
    docker_pulls(clients.dockerd, reference, image)
    succeeded(clients.dockerd.docker("image", "rm", reference))


Pull = Callable[[Clients, str, Image], None]

PULLERS: dict[str, Pull] = {
    "skopeo": _skopeo,
    "podman": _podman,
    "buildah": _buildah,
    "containerd": _containerd,
    "containerd-ns": _containerd_ns,
    "dockerd": _dockerd,
    "dockerd-path": _dockerd_path,
    "dockerd-mirror": _dockerd_mirror,
}
