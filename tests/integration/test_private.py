"""A private image reaches only those whom its registry would give it to, whatever the mirror holds."""

from __future__ import annotations

import pytest

from tests.long import LONG

from .parts.accounts import ALICE, BOB, Account
from .parts.clients import Containerd, Dockerd, podman, skopeo
from .parts.images import Image, image
from .parts.machine import Machine
from .parts.mirror import Mirror
from .parts.registry import Registry
from .parts.tokens import Tokens
from .pulls import (
    ctr_pulls,
    docker_pulls,
    podman_pulls,
    refused,
    skopeo_pulls,
    skopeo_reads,
    succeeded,
)

pytestmark = pytest.mark.integration

WRONG = Account("alice", "wrong")


@pytest.fixture(params=["docker", "direct"] if LONG else ["docker"])
def host(mirror: Mirror, request: pytest.FixtureRequest) -> str:
    """A virtual host of the registry with tokens: with a CDN, and in the long run without one."""
    return mirror.host(request.param)


def test_skopeo(host: str, token_registry: Registry, skopeo_machine: Machine) -> None:
    """After ``skopeo login`` Alice gets her image; nobody else gets it, before or after her."""
    pushed = image(f"private skopeo {host}")
    reference = f"{host}/private/skopeo:{_tag(pushed)}"
    token_registry.push("private/skopeo", pushed, _tag(pushed))
    inspect = ["inspect", "--raw", "--tls-verify=false"]
    login = ["login", "--tls-verify=false", "-ualice"]
    refused(skopeo(skopeo_machine, *inspect, f"docker://{reference}"), "unauthorized")
    refused(skopeo(skopeo_machine, *login, "-pwrong", host), "invalid username/password")
    succeeded(skopeo(skopeo_machine, *login, f"-p{ALICE.password}", host))
    skopeo_pulls(skopeo_machine, reference, pushed)
    succeeded(skopeo(skopeo_machine, "logout", host))
    refused(skopeo(skopeo_machine, *inspect, f"docker://{reference}"), "unauthorized")
    bobs = f"--creds={BOB.name}:{BOB.password}"
    refused(skopeo(skopeo_machine, *inspect, bobs, f"docker://{reference}"), "unauthorized", "denied")


def test_podman(host: str, token_registry: Registry, podman_machine: Machine) -> None:
    """podman logs in at a virtual host and pulls a private image."""
    pushed = image(f"podman {host}")
    token_registry.push("private/podman", pushed, _tag(pushed))
    login = ["login", "--tls-verify=false", "-ualice"]
    refused(podman(podman_machine, *login, "-pwrong", host), "invalid username/password")
    succeeded(podman(podman_machine, *login, f"-p{ALICE.password}", host))
    podman_pulls(podman_machine, f"{host}/private/podman:{_tag(pushed)}", pushed)


def test_containerd(host: str, token_registry: Registry, containerd: Containerd) -> None:
    """containerd sends the password in a form, and pulls a private image; another member pulls a team's."""
    pushed, teams = image(f"containerd {host}"), image(f"containerd team {host}")
    token_registry.push("private/containerd", pushed, _tag(pushed))
    token_registry.push("team/containerd", teams, _tag(teams))
    pull = ("images", "pull", "--plain-http", f"{host}/private/containerd:{_tag(pushed)}")
    refused(containerd.ctr(*pull), "authorization failed", "401")
    ctr_pulls(containerd, pull[-1], pushed, "--plain-http", f"--user=alice:{ALICE.password}")
    team = f"{host}/team/containerd:{_tag(teams)}"
    ctr_pulls(containerd, team, teams, "--plain-http", f"--user=bob:{BOB.password}")


def test_dockerd(host: str, token_registry: Registry, dockerd: Dockerd) -> None:
    """docker logs in at a virtual host with the right password only, and pulls a private image."""
    pushed = image(f"dockerd {host}")
    token_registry.push("private/dockerd", pushed, _tag(pushed))
    reference = f"{host}/private/dockerd:{_tag(pushed)}"
    refused(dockerd.login(host, WRONG), "unauthorized", "incorrect username or password")
    refused(dockerd.docker("pull", reference), "denied", "unauthorized")
    docker_pulls(dockerd, reference, pushed, ALICE)
    succeeded(dockerd.docker("image", "rm", reference))
    refused(dockerd.docker("pull", reference), "denied", "unauthorized")


def test_basic(mirror: Mirror, basic_registry: Registry, dockerd: Dockerd, skopeo_machine: Machine) -> None:
    """A registry that asks for a password is asked with the client's, and a wrong one is refused."""
    pushed = image("basic login")
    basic_registry.push("public/basic", pushed, "login")
    host = mirror.host("basic")
    refused(dockerd.login(host, WRONG), "unauthorized", "incorrect username or password", "401")
    docker_pulls(dockerd, f"{host}/public/basic:login", pushed, ALICE)
    skopeo_reads(skopeo_machine, f"{host}/public/basic:login", pushed, ALICE)
    options = ["inspect", "--tls-verify=false", f"docker://{host}/public/basic:login"]
    refused(skopeo(skopeo_machine, *options), "unauthorized", "authentication required")


def test_password_goes_to_the_token_service(
    mirror: Mirror, token_registry: Registry, tokens: Tokens, dockerd: Dockerd
) -> None:
    """The token service sees the user's login as they sent it, and the mirror's log does not show it."""
    tokens.requests.clear()
    succeeded(dockerd.login(mirror.host("docker"), ALICE))
    succeeded(dockerd.docker("logout", mirror.host("docker")))
    assert any(each.account == "alice" and each.offline for each in tokens.requests)
    log = mirror.read_log()
    assert ALICE.password not in log
    assert ALICE.basic.removeprefix("Basic ") not in log


def _tag(image: Image) -> str:
    """A tag that no other image of the session has."""
    return f"t{image.digest[-12:]}"
