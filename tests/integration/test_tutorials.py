"""The commands of the tutorials for machines with Docker, run as they are written there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..documented_commands import read_commands
from .conftest import MakeChain, MakeMachine
from .parts.clients import Dockerd
from .parts.images import index
from .parts.mirror import Mirror
from .parts.process import wait_until
from .parts.registry import Registry
from .pulls import succeeded

pytestmark = pytest.mark.integration

TUTORIALS = Path(__file__).parents[2] / "docs/tutorials"
ADDRESSES = ("127.0.0.1:8080", "192.168.1.5:8080")
HUB = ("busybox", "alpine")
MANIFEST = " /v2/library/busybox/manifests/"
OTHERS = ("prometheus/busybox:latest", "pause:3.9")


@pytest.fixture(scope="module")
def mirror(chains: MakeChain, open_registry: Registry) -> Iterator[Mirror]:
    """A mirror of registries that have the images of the tutorials."""
    for name in OTHERS:
        open_registry.push(name.partition(":")[0], index(name), name.partition(":")[2])
    others = {"quay": {"url": open_registry.url}, "k8s": {"url": open_registry.url}}
    with chains(others=others) as chain:
        for name in HUB:
            chain.registry.push(f"library/{name}", index(name), "latest")
        yield chain.mirror


@pytest.fixture
def dockerd(make_machine: MakeMachine) -> Iterator[Dockerd]:
    """A Docker daemon that knows no mirror yet."""
    with Dockerd(make_machine("dockerd", "docker", "curl")) as daemon:
        yield daemon


@pytest.mark.parametrize("name", ["laptop", "gitlab", "github-actions", "jenkins"])
def test_to_the_letter(name: str, mirror: Mirror, dockerd: Dockerd) -> None:
    """Each command succeeds; afterwards dockerd pulls Docker Hub's images through the mirror."""
    machine = dockerd.machine
    program = f"env DOCKMIRROR_CONFIG={mirror.configuration} {Path(sys.executable).with_name('dockmirror')}"
    for command in read_commands(TUTORIALS / f"{name}.md"):
        line = command.line.replace(".venv/bin/dockmirror", program)
        for address in ADDRESSES:
            line = line.replace(address, f"127.0.0.1:{mirror.port}")
        if command.line == "systemctl reload docker":
            dockerd.reload()
            wait_until(lambda: knows_a_mirror(dockerd), "dockerd has reloaded")
        elif command.line == "systemctl restart docker":
            dockerd.stop()
            dockerd.start()
        elif not command.not_run and command.line != "make run":
            printed = succeeded(machine.run("sh", "-euc", line))
            if command.line.endswith("/client/docker"):  # "Put these lines into /etc/docker/daemon.json"
                (machine.etc / "docker").mkdir(exist_ok=True)
                (machine.etc / "docker/daemon.json").write_text(printed)
    before = mirror.read_log().count(MANIFEST)
    succeeded(dockerd.docker("pull", "busybox"))
    wait_until(lambda: mirror.read_log().count(MANIFEST) > before, "the mirror was asked")


def knows_a_mirror(dockerd: Dockerd) -> bool:
    """Return whether ``docker info`` lists a registry mirror."""
    return "Registry Mirrors" in succeeded(dockerd.docker("info"))
