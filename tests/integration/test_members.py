"""A mirror for users with a password, with an account of its own upstream."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from .conftest import MakeChain, MakeDirectory
from .parts.accounts import ALICE, Account
from .parts.chain import Chain
from .parts.clients import podman, skopeo
from .parts.command import dockmirror
from .parts.images import Image, image
from .parts.kept import holds, leaks
from .parts.machine import Machine
from .parts.process import wait_until
from .pulls import podman_pulls, refused, skopeo_pulls, succeeded

pytestmark = pytest.mark.integration

NAME = "private/members"
CAROL, DAVE = Account("carol", "car0l's"), Account("dave", "dav3's")


def names(*accounts: Account) -> str:
    """The users' lines as ``htpasswd -B`` writes them."""
    lines = []
    for each in accounts:
        hashed = bcrypt.hashpw(each.password.encode(), bcrypt.gensalt(5)).decode()
        lines.append(f"{each.name}:{hashed.replace('$2b$', '$2y$')}\n")
    return "".join(lines)


@pytest.fixture(scope="module")
def secrets(directory: MakeDirectory) -> Path:
    """A directory with the mirror's own files: Alice's password upstream, the user Carol, and the keys."""
    path = directory("secrets")
    (path / "password").write_text(f"{ALICE.password}\n")
    (path / "htpasswd").write_text(names(CAROL))
    return path


@pytest.fixture(scope="module")
def chain(chains: MakeChain, secrets: Path) -> Iterator[Chain]:
    """A mirror whose clients need a password, and may be in any network."""
    access = {"htpasswd": str(secrets / "htpasswd"), "keys": str(secrets / "keys")}
    account: dict[str, Any] = {"username": ALICE.name, "password_file": str(secrets / "password")}
    with chains(upstream=account, access=access) as parts:
        yield parts
        log = parts.mirror.read_log()
    assert not [each for each in (CAROL, DAVE) if each.password in log]
    assert (
        leaks(parts.mirror.cache, {CAROL.password, ALICE.password, (secrets / "keys").read_text()[:32]}) == []
    )


@pytest.fixture
def pushed(chain: Chain) -> Image:
    """Alice's image."""
    alices = image("for members")
    chain.registry.push(NAME, alices, "latest")
    chain.tokens.requests.clear()
    return alices


def test_by_every_route(chain: Chain, pushed: Image, skopeo_machine: Machine) -> None:
    """Carol pulls the image that is Alice's upstream; others get 401 by every route, cached or not."""
    mirror = chain.mirror
    routes = f"{mirror.host('docker')}/{NAME}", f"{mirror.host()}/docker.io/{NAME}"
    inspect = ["inspect", "--raw", "--tls-verify=false"]
    for host in (mirror.host("docker"), mirror.host()):
        login = ["login", "--tls-verify=false", "-ucarol"]
        refused(skopeo(skopeo_machine, *login, "-pwrong", host), "invalid username/password")
    for _ in range(2):
        for route in routes:
            reference = f"docker://{route}:latest"
            refused(skopeo(skopeo_machine, *inspect, "--no-creds", reference), "unauthorized")
            alices = f"--creds={ALICE.name}:{ALICE.password}"
            refused(skopeo(skopeo_machine, *inspect, alices, reference), "unauthorized", "invalid username")
            host = route.partition("/")[0]
            succeeded(skopeo(skopeo_machine, *login, f"-p{CAROL.password}", host))
            skopeo_pulls(skopeo_machine, f"{route}:latest", pushed)
            succeeded(skopeo(skopeo_machine, "logout", host))
    assert {each.account for each in chain.tokens.requests} == {ALICE.name}
    for path in ("/", "/v2/", f"/v2/{NAME}/tags/list", f"/docker.io/v2/{NAME}/tags/list", "/nothing"):
        for name in ("docker", "", "unknown"):
            assert mirror.client(name).bare("GET", path, None, {}).status == 401


def test_warmed(chain: Chain, pushed: Image, secrets: Path) -> None:
    """``dockmirror warm`` is let in by name and password, and by nothing else."""
    chain.registry.push("private/warmed", pushed, "latest")
    image = "docker.io/private/warmed"
    (secrets / "carol").write_text(f"{CAROL.password}\n")
    assert dockmirror(chain.mirror, "warm", image).returncode == 1
    login = ["--user", CAROL.name, "--password-file", str(secrets / "carol")]
    warmed = dockmirror(chain.mirror, "warm", image, *login)
    assert CAROL.password not in succeeded(warmed) + warmed.stderr
    wait_until(lambda: holds(chain.mirror.cache, image, pushed), "it is held")


def test_podman(chain: Chain, pushed: Image, podman_machine: Machine) -> None:
    """podman logs in at the mirror as at any registry."""
    host = chain.mirror.host("docker")
    succeeded(podman(podman_machine, "login", "--tls-verify=false", "-ucarol", f"-p{CAROL.password}", host))
    podman_pulls(podman_machine, f"{host}/{NAME}:latest", pushed)


def test_new_settings(chain: Chain, secrets: Path) -> None:
    """SIGHUP applies right settings and logs wrong ones; users need no signal."""
    mirror = chain.mirror
    host = mirror.client("docker")

    def status(account: Account) -> int:
        return host.bare("GET", "/v2/", None, {"Authorization": account.basic}).status

    assert (status(CAROL), status(DAVE)) == (200, 401)
    (secrets / "htpasswd").write_text(names(CAROL, DAVE))
    assert (status(CAROL), status(DAVE)) == (200, 200)
    mirror.configure(networks=["10.0.0.0/99"])
    os.kill(mirror.pid, signal.SIGHUP)
    wait_until(lambda: "cannot reload the settings" in mirror.read_log(), "the log says so")
    assert "networks.0: expected a network" in mirror.read_log()
    assert status(CAROL) == 200
    mirror.configure(networks=["10.0.0.0/8"])
    os.kill(mirror.pid, signal.SIGHUP)
    wait_until(lambda: "settings reloaded" in mirror.read_log(), "the log says so")
    assert status(CAROL) == 403
