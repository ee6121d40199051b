"""nginx in front, as docs/examples/nginx.conf has it: TLS ends there, and the clients are none the wiser."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from .conftest import MakeChain, MakeMachine
from .parts.accounts import ALICE
from .parts.authority import Authority
from .parts.chain import Chain
from .parts.clients import Containerd, Dockerd, curl
from .parts.images import image, index
from .parts.machine import Machine
from .parts.nginx import Nginx
from .parts.process import wait_until
from .parts.registry import Registry
from .pulls import (
    ctr_pulls,
    docker_pulls,
    podman_pulls,
    refused,
    skopeo_pulls,
    succeeded,
)
from .pushes import skopeo_pushes

pytestmark = pytest.mark.integration

LARGE = 16 * 1024 * 1024
"""More than nginx and the kernel hold between them."""


@dataclass(frozen=True)
class Fronted:
    """A mirror with nginx in front of it, whose certificate is the authority's."""

    chain: Chain
    nginx: Nginx
    authority: Authority

    def trusted_by(self, machine: Machine) -> Machine:
        """The machine, on which the authority is trusted now."""
        if not (machine.etc / "docker/certs.d" / self.nginx.host("docker")).exists():
            for name in ("", "docker"):
                machine.trust(self.authority.certificate, self.nginx.host(name))
        return machine


@pytest.fixture(scope="module")
def fronted(
    chains: MakeChain, make_machine: MakeMachine, authority: Authority, open_registry: Registry
) -> Iterator[Fronted]:
    """The mirror believes nginx alone, and what it says of its clients."""
    certificate = authority.issue("mirror.test", "*.mirror.test")
    others = {"open": {"url": open_registry.url, "writes": True}}
    with (
        chains(trust_proxy=["127.0.0.1"], networks=["127.0.0.0/24"], others=others) as chain,
        Nginx(make_machine("nginx"), chain.mirror.port, certificate) as nginx,
    ):
        yield Fronted(chain, nginx, authority)
        said = nginx.log.read_text()
        assert "buffered to a temporary file" not in said
        assert "[error]" not in said


def test_as_it_stands(make_machine: MakeMachine, authority: Authority) -> None:
    """nginx finds nothing wrong with the file, nor anything to warn of."""
    machine = make_machine("nginx")
    nginx = Nginx(machine, 8080, authority.issue("mirror.test"))
    checked = machine.run("nginx", "-t", "-c", str(nginx.configuration))
    succeeded(checked)
    assert "[warn]" not in checked.stderr


def test_skopeo(fronted: Fronted, skopeo_machine: Machine) -> None:
    """skopeo pulls a public image whose name it gives in short."""
    pushed = index("nginx skopeo")
    fronted.chain.registry.push("library/fronted", pushed, "latest")
    reference = f"{fronted.nginx.host('docker')}/fronted:latest"
    skopeo_pulls(fronted.trusted_by(skopeo_machine), reference, pushed, verified=True)


def test_podman(fronted: Fronted, podman_machine: Machine) -> None:
    """podman pulls with a login, which goes to the token service and comes back as a token."""
    pushed = image("nginx podman")
    fronted.chain.registry.push("private/podman", pushed, "latest")
    reference = f"{fronted.nginx.host('docker')}/private/podman:latest"
    podman_pulls(fronted.trusted_by(podman_machine), reference, pushed, ALICE)


def test_dockerd(fronted: Fronted, dockerd: Dockerd) -> None:
    """dockerd logs in by https, and pulls a private image and, by the own host's path, a public one."""
    private, public = image("nginx dockerd"), image("nginx dockerd path")
    fronted.chain.registry.push("private/dockerd", private, "latest")
    fronted.chain.registry.push("library/dockerd", public, "latest")
    fronted.trusted_by(dockerd.machine)
    docker_pulls(dockerd, f"{fronted.nginx.host('docker')}/private/dockerd:latest", private, ALICE)
    docker_pulls(dockerd, f"{fronted.nginx.host()}/docker.io/library/dockerd:latest", public)


def test_containerd(fronted: Fronted, containerd: Containerd) -> None:
    """containerd pulls a private image as somebody."""
    pushed = index("nginx containerd")
    fronted.chain.registry.push("private/containerd", pushed, "latest")
    reference = f"{fronted.nginx.host('docker')}/private/containerd:latest"
    options = [f"--tlscacert={fronted.authority.certificate}", f"--user={ALICE.name}:{ALICE.password}"]
    ctr_pulls(containerd, reference, pushed, *options)


def test_wrong_password(fronted: Fronted, dockerd: Dockerd) -> None:
    """A wrong password is refused by the token service."""
    fronted.trusted_by(dockerd.machine)
    registry = fronted.nginx.host("docker")
    refused(
        dockerd.docker("login", "-u", ALICE.name, "-p", "wrong", registry), "unauthorized", "Unauthorized"
    )


def test_where_tokens_are_had(fronted: Fronted, skopeo_machine: Machine) -> None:
    """The challenge names the host as the client knows it, with https and nginx's port."""
    host = fronted.nginx.host("docker")
    told = succeeded(_curl(fronted, skopeo_machine, "--head", f"https://{host}/v2/"))
    assert f'realm="https://{host}/v2/auth"' in told


def test_who_asks(fronted: Fronted, skopeo_machine: Machine) -> None:
    """The client's address is the one that nginx saw, whatever the client says; it decides who is served."""
    host = fronted.nginx.host()
    for address, claimed, status in (("127.0.0.9", "8.8.8.8", "200"), ("127.0.1.9", "127.0.0.1", "403")):
        options = ["--interface", address, "-H", f"X-Forwarded-For: {claimed}", "-o", "/dev/null"]
        options += ["-w", "%{http_code}", f"https://{host}/v2/"]
        assert succeeded(_curl(fronted, skopeo_machine, *options)) == status
    line = f" 127.0.0.9 {host} GET /v2/ 200 "
    wait_until(lambda: line in fronted.chain.mirror.read_log(), f"the log has{line}")


def test_a_slow_client(fronted: Fronted, skopeo_machine: Machine) -> None:
    """A blob is streamed at its pace, and lies nowhere between: nginx writes no file."""
    pushed = image("nginx slow", layers=(LARGE,))
    fronted.chain.registry.push("library/slow", pushed, "latest")
    layer, file = pushed.layers[0], skopeo_machine.home / "layer"
    url = f"https://{fronted.nginx.host()}/v2/docker.io/library/slow/blobs/{layer.digest}"
    options = ["--limit-rate", "8M", "-o", str(file)]
    succeeded(_curl(fronted, skopeo_machine, *options, url))
    assert file.read_bytes() == layer.data
    buffered = fronted.nginx.configuration.parent / "buffered"
    assert [path for path in buffered.rglob("*") if path.is_file()] == []


def test_a_push(fronted: Fronted, skopeo_machine: Machine) -> None:
    """A layer that is larger than nginx accepts by default is passed on; nginx writes no file."""
    pushed = image("nginx push", layers=(LARGE,))
    skopeo_pushes(skopeo_machine, f"{fronted.nginx.host('open')}/library/pushed:latest", pushed)
    skopeo_pulls(
        fronted.trusted_by(skopeo_machine), f"{fronted.nginx.host('open')}/library/pushed:latest", pushed
    )
    bodies = fronted.nginx.configuration.parent / "bodies"
    assert [path for path in bodies.rglob("*") if path.is_file()] == []


def _curl(fronted: Fronted, machine: Machine, *arguments: str) -> subprocess.CompletedProcess[str]:
    return curl(machine, "--cacert", str(fronted.authority.certificate), *arguments)
