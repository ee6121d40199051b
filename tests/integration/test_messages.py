"""The messages of clients whose pull fails, as the documents quote them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import MakeChain
from .parts.clients import Completed, Containerd, Dockerd, podman, skopeo
from .parts.machine import Machine
from .parts.mirror import Mirror
from .parts.process import free_port

pytestmark = pytest.mark.integration

DOCUMENT = (Path(__file__).parents[2] / "docs/how-to/troubleshoot.md").read_text("utf-8")
REFUSED = "connect: connection refused"
PLAIN_HTTP = "server gave HTTP response to HTTPS client"
CUT_OFF = "cannot be reached"
NOT_MIRRORED = ("name unknown: the registry", "is not mirrored here")
DOCKER = {
    "nobody listens": (REFUSED,),
    "not mirrored": NOT_MIRRORED,
    "no such tag": ("manifest unknown",),
    "network": ("pull access denied", "this mirror does not serve your network"),
    "private": ("pull access denied", "private images: docker login"),
    "upstream down": ("received unexpected HTTP status: 502 Bad Gateway", CUT_OFF),
}
PODMAN = {
    **DOCKER,
    "nobody listens": ("pinging container registry", REFUSED),
    "network": ("invalid status code from registry 403 (Forbidden)",),
    "private": ("denied:", "private images: docker login"),
}
CONTAINERD = {
    "nobody listens": (REFUSED,),
    "not mirrored": ("not found",),
    "no such tag": ("not found",),
    "network": ("failed with status code", "403 Forbidden"),
    "private": ("failed with status code", "403 Forbidden"),
    "upstream down": ("failed with status code", "502 Bad Gateway", CUT_OFF),
}

Pull = Callable[[str], Completed]
Images = dict[str, str]


@pytest.fixture(scope="module")
def closed(chains: MakeChain) -> Iterator[Mirror]:
    """A mirror that serves another network."""
    with chains(networks=["10.0.0.0/8"]) as chain:
        yield chain.mirror


@pytest.fixture(scope="module")
def cut_off(chains: MakeChain) -> Iterator[Mirror]:
    """A mirror whose upstream is down."""
    with chains() as chain:
        chain.registry.stop()
        yield chain.mirror


@pytest.fixture
def images(mirror: Mirror, closed: Mirror, cut_off: Mirror) -> Images:
    """An image for each reason why it cannot be pulled."""
    return {
        "nobody listens": f"127.0.0.1:{free_port()}/docker.io/library/image:latest",
        "not mirrored": f"{mirror.host()}/nowhere.example/team/image:latest",
        "no such tag": f"{mirror.host()}/docker.io/library/image:absent",
        "network": f"{closed.host()}/docker.io/library/image:latest",
        "private": f"{mirror.host()}/docker.io/private/image:latest",
        "upstream down": f"{cut_off.host()}/docker.io/library/image:latest",
    }


def printed(images: Images, messages: dict[str, tuple[str, ...]], section: str, pull: Pull) -> None:
    """Pull each image; its message is in what the client prints, and in a row of the section."""
    rows = DOCUMENT.partition(f"\n## {section}\n")[2].partition("\n## ")[0].splitlines()
    for reason, words in messages.items():
        done = pull(images[reason])
        assert done.returncode != 0
        for word in words:
            assert word in done.stdout + done.stderr, reason
        assert any(all(f"`{word}`" in row for word in words) for row in rows), words


def test_docker(images: Images, dockerd: Dockerd) -> None:
    printed(images, DOCKER, "What docker prints", lambda name: dockerd.docker("pull", name))


def test_podman(images: Images, mirror: Mirror, podman_machine: Machine) -> None:
    """With and without TLS."""
    section = "What podman, buildah and skopeo print"
    printed(images, PODMAN, section, lambda name: podman(podman_machine, "pull", "--tls-verify=false", name))
    tls = {"TLS": f"{mirror.host()}/docker.io/library/image:latest"}
    printed(tls, {"TLS": (PLAIN_HTTP,)}, section, lambda name: podman(podman_machine, "pull", name))


def test_skopeo(images: Images, skopeo_machine: Machine) -> None:
    printed(
        images, PODMAN, "What podman, buildah and skopeo print",
        lambda name: skopeo(skopeo_machine, "inspect", "--tls-verify=false", f"docker://{name}"),
    )  # fmt: skip


def test_containerd(images: Images, mirror: Mirror, containerd: Containerd) -> None:
    """With and without TLS."""
    section = "What containerd and Kubernetes print"
    pull = ("images", "pull")
    printed(images, CONTAINERD, section, lambda name: containerd.ctr(*pull, "--plain-http", name))
    tls = {"TLS": f"{mirror.host()}/docker.io/library/image:latest"}
    printed(tls, {"TLS": (PLAIN_HTTP,)}, section, lambda name: containerd.ctr(*pull, name))
