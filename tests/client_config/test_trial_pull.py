"""The commands that the page suggests to test a client."""

from __future__ import annotations

import pytest

from dockmirror.client_config.snippet import MirrorAddress, MirroredRegistry
from dockmirror.client_config.trial_pull import trial_pulls

HUB = MirroredRegistry("docker.io", "docker.io", "https://registry-1.docker.io", "docker.m.example")
QUAY = MirroredRegistry("quay.io", "quay.io", "https://quay.io", "quay.m.example")
LAN = MirroredRegistry("lan.example:5000", "lan.example_5000", "http://lan.example:5000")


@pytest.mark.parametrize(
    ("registries", "host", "docker", "others"),
    [
        ((LAN, HUB), None, "hello-world", "docker.io/library/hello-world"),
        ((LAN, QUAY), None, "m.example/quay.io/podman/hello", "quay.io/podman/hello"),
        ((LAN,), None, "m.example/lan.example_5000/OWNER/IMAGE", "lan.example:5000/OWNER/IMAGE"),
        ((HUB, QUAY), QUAY, "quay.m.example/podman/hello", "quay.m.example/podman/hello"),
    ],
)
def test_the_image_is_one_of_the_mirrors_registries(
    registries: tuple[MirroredRegistry, ...], host: MirroredRegistry | None, docker: str, others: str
) -> None:
    """Docker goes to a mirror only for Docker Hub, and needs the mirror in all other names."""
    pulls = trial_pulls(MirrorAddress("https", "m.example", registries), host)
    assert [each.command for each in pulls] == [
        f"docker pull {docker}",
        f"podman pull {others}",
        f"crictl pull {others}",
    ]
