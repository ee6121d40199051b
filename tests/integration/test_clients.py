"""What the mirror's page and ``dockmirror client`` tell each client makes it pull through the mirror."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import MakeMachine
from .parts.clients import Containerd, Dockerd, curl
from .parts.images import image, index
from .parts.machine import Machine
from .parts.mirror import Mirror
from .parts.registry import Registry
from .pulls import buildah_pulls, ctr_pulls, docker_pulls, podman_pulls, succeeded

pytestmark = pytest.mark.integration


@pytest.fixture
def machine(make_machine: MakeMachine) -> Machine:
    """A new machine."""
    return make_machine("curl")


def fetched(machine: Machine, mirror: Mirror, path: str) -> str:
    """What the page's address for a client gives, without a browser."""
    return succeeded(curl(machine, "--fail", f"http://{mirror.host()}/client/{path}"))


def command(machine: Machine, mirror: Mirror, client: str) -> None:
    """Has the command write the client's files."""
    program = Path(sys.executable).with_name("dockmirror")
    succeeded(
        machine.run(
            "env", "DOCKMIRROR_CONFIG=" + str(mirror.configuration), str(program), "client", client,
            f"--mirror=http://{mirror.host()}", "--write",
        )
    )  # fmt: skip


def put(machine: Machine, path: str, text: str) -> None:
    """Writes a file of the machine's."""
    file = machine.directory / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture(params=["page", "command"])
def dockerd(request: pytest.FixtureRequest, make_machine: MakeMachine, mirror: Mirror) -> Iterator[Dockerd]:
    """A Docker daemon that was told so."""
    machine = make_machine("dockerd", "docker", "curl")
    if request.param == "page":
        put(machine, "/etc/docker/daemon.json", fetched(machine, mirror, "docker"))
    else:
        command(machine, mirror, "docker")
    with Dockerd(machine) as daemon:
        yield daemon


def test_dockerd(mirror: Mirror, token_registry: Registry, dockerd: Dockerd) -> None:
    """dockerd pulls Docker Hub's images by their own names, and by a virtual host and a path without TLS."""
    pushed = index("told dockerd")
    token_registry.push("library/told", pushed, "latest")
    for name in ("told", f"{mirror.host('docker')}/told", f"{mirror.host()}/docker.io/library/told"):
        docker_pulls(dockerd, f"{name}:latest", pushed)
        succeeded(dockerd.docker("image", "rm", f"{name}:latest"))


@pytest.mark.parametrize("way", ["page", "command"])
def test_containerd(mirror: Mirror, token_registry: Registry, containerd: Containerd, way: str) -> None:
    """containerd goes by the files of its directory."""
    pushed = index(f"told containerd {way}")
    token_registry.push("library/told-containerd", pushed, way)
    if way == "page":
        hosts = containerd.hosts("docker.io", fetched(containerd.machine, mirror, "containerd/docker.io"))
    else:
        for file in (containerd.machine.etc / "containerd").rglob("hosts.toml"):
            file.unlink()
        command(containerd.machine, mirror, "containerd")
        hosts = "/etc/containerd/certs.d"
    ctr_pulls(containerd, f"docker.io/library/told-containerd:{way}", pushed, f"--hosts-dir={hosts}")


@pytest.mark.parametrize("way", ["page", "command"])
def test_podman_and_buildah(
    mirror: Mirror, token_registry: Registry, podman_machine: Machine, way: str
) -> None:
    """podman and buildah go by the drop-in, and have their own settings beside it."""
    pushed = image(f"told podman {way}")
    token_registry.push("library/told-podman", pushed, way)
    if way == "page":
        path = "/etc/containers/registries.conf.d/50-dockmirror.conf"
        put(podman_machine, path, fetched(podman_machine, mirror, "podman"))
    else:
        command(podman_machine, mirror, "podman")
    for pull in (podman_pulls, buildah_pulls):
        pull(podman_machine, f"docker.io/library/told-podman@{pushed.digest}", pushed)


def test_what_came_through(mirror: Mirror, token_registry: Registry, machine: Machine) -> None:
    """The page shows whoever pulled what the mirror saw of it."""
    pushed = image("seen")
    token_registry.push("library/seen", pushed, "latest")
    manifest = f"http://{mirror.host()}/v2/docker.io/library/seen/manifests/latest?secret=1"
    # One connection: each process of a mirror has seen what it has served itself.
    rows = succeeded(curl(machine, manifest, f"http://{mirror.host()}/")).splitlines()
    [row] = [row.split() for row in rows if "/library/seen/" in row]
    assert row[2:5] == ["GET", "/v2/docker.io/library/seen/manifests/latest", "200"]
