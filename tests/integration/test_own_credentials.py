"""With an account of its own the mirror gives what is private to whoever may reach it, and to nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.programs import helper, program

from .conftest import MakeChain, MakeDirectory, MakeMachine
from .parts.accounts import ALICE
from .parts.chain import Chain
from .parts.clients import skopeo
from .parts.images import Image, image
from .parts.kept import holds, leaks
from .parts.machine import Machine
from .parts.mirror import Mirror
from .parts.process import wait_until
from .parts.registry import Registry
from .pulls import refused, skopeo_pulls

pytestmark = pytest.mark.integration

NAME = "private/shared"
DOCKER = f"docker.io/{NAME}"


@pytest.fixture(scope="module")
def account(directory: MakeDirectory) -> dict[str, Any]:
    """Alice's, as the mirror is told of it: the password lies in a file outside of the mirror's directory."""
    password = directory("secrets") / "password"
    password.write_text(f"{ALICE.password}\n")
    return {"username": ALICE.name, "password_file": str(password)}


@pytest.fixture(scope="module")
def chain(chains: MakeChain, account: dict[str, Any]) -> Iterator[Chain]:
    """A mirror with that account; at the end no secret lies in its log or in its cache."""
    with chains(upstream=account) as parts:
        yield parts


@pytest.fixture(scope="module")
def alices(chain: Chain) -> Image:
    """Alice's image, which the registry refuses to everybody else."""
    pushed = image("with the mirror's account")
    chain.registry.push(NAME, pushed, "latest")
    return pushed


@pytest.fixture
def pushed(chain: Chain, alices: Image) -> Image:
    """The same, before any request for a token."""
    chain.tokens.requests.clear()
    return alices


def routes(chain: Chain) -> tuple[str, str]:
    """The image by virtual host and by path."""
    return f"{chain.mirror.host('docker')}/{NAME}", f"{chain.mirror.host()}/{DOCKER}"


def test_pull_without_login(chain: Chain, pushed: Image, skopeo_machine: Machine) -> None:
    """A private image is pulled without a login, and the password is sent to the token service alone."""
    for reference in routes(chain) * 2:
        skopeo_pulls(skopeo_machine, f"{reference}:latest", pushed)
    assert {each.account for each in chain.tokens.requests} == {ALICE.name}
    wait_until(lambda: holds(chain.mirror.cache, DOCKER, pushed), "the image is held")


def test_login_is_refused(chain: Chain, pushed: Image) -> None:
    """A login is 403, even by the account that the mirror uses."""
    host = chain.mirror.client("docker")
    answer = host.bare("GET", "/v2/", None, {"Authorization": ALICE.basic})
    assert answer.status == 403
    assert b"takes no logins" in answer.body
    assert chain.tokens.requests == []


def test_account_removed(chain: Chain, pushed: Image, skopeo_machine: Machine) -> None:
    """Without the account cached images are refused to clients that their registry refuses."""
    skopeo_pulls(skopeo_machine, f"{routes(chain)[0]}:latest", pushed)
    wait_until(lambda: holds(chain.mirror.cache, DOCKER, pushed), "the image is held")
    chain.mirror.stop()
    without = {"url": chain.front.url, "realms": [chain.tokens.url], "allow_networks": ["127.0.0.0/8"]}
    chain.mirror.configure(upstreams={"docker": {**without, "public": True}})
    chain.mirror.start()
    for host in routes(chain):
        for reference in (f"{host}:latest", f"{host}@{pushed.digest}"):
            inspected = skopeo(skopeo_machine, "inspect", "--tls-verify=false", f"docker://{reference}")
            refused(inspected, "unauthorized", "denied")


@pytest.mark.parametrize("identity", [False, True], ids=["password", "identity token"])
def test_credential_helper(
    chains: MakeChain, directory: MakeDirectory, skopeo_machine: Machine, identity: bool
) -> None:
    """A credential helper is called once for many pulls without a login."""
    path = directory("helper") / "docker-credential-tests"
    with chains(upstream={"credential_helper": helper(path, "nobody", "none")}) as chain:
        secret = chain.tokens.refresh_token(ALICE) if identity else ALICE.password
        helper(path, "<token>" if identity else ALICE.name, secret)
        pushed = image(f"with a helper {identity}")
        chain.registry.push(NAME, pushed, "latest")
        chain.tokens.requests.clear()
        for reference in routes(chain):
            skopeo_pulls(skopeo_machine, f"{reference}:latest", pushed)
        assert {each.account for each in chain.tokens.requests} == {ALICE.name}
        assert {each.grant for each in chain.tokens.requests} == {"refresh_token" if identity else None}
        assert asked(path) == ["get https://index.docker.io/v1/"]


def test_credential_helper_with_a_new_secret(chains: MakeChain, directory: MakeDirectory) -> None:
    """A helper is called once more after its secret is refused, and no secret is logged."""
    path = directory("helper") / "docker-credential-tests"
    with chains(upstream={"credential_helper": helper(path, ALICE.name, "expired")}, tag_ttl=0) as chain:
        chain.registry.push(NAME, image("changed"), "latest")
        host = chain.mirror.client("docker")
        assert host.manifest(NAME, "latest").status == 403
        assert len(asked(path)) == 2
        assert host.manifest(NAME, "latest").status == 403
        assert len(asked(path)) == 2
        helper(path, ALICE.name, ALICE.password)
        chain.registry.push("private/another", image("another"), "latest")
        assert host.manifest("private/another", "latest").status == 200
        assert chain.mirror.read_log().count("refused the mirror's account") == 1
        assert leaks(chain.mirror.directory, {"expired"}) == []


def test_malformed_credentials(chains: MakeChain, directory: MakeDirectory) -> None:
    """A helper's malformed output is an error that does not contain it."""
    path = directory("helper") / "docker-credential-tests"
    rubbish = f"echo {ALICE.password}; echo {ALICE.password} >&2"
    with chains(upstream={"credential_helper": program(path, rubbish)}) as chain:
        chain.registry.push(NAME, image("rubbish"), "latest")
        answer = chain.mirror.client("docker").manifest(NAME, "latest")
        assert answer.status == 502
        assert ALICE.password.encode() not in answer.body
        assert "did not write a user name and a secret" in chain.mirror.read_log()


def asked(helper: Path) -> list[str]:
    """The calls of a helper."""
    return Path(f"{helper}.asked").read_text().splitlines()


def test_basic(
    tmp_path: Path,
    make_machine: MakeMachine,
    basic_registry: Registry,
    account: dict[str, Any],
    skopeo_machine: Machine,
) -> None:
    """The account is sent to a registry with Basic authentication."""
    pushed = image("basic with the mirror's account")
    basic_registry.push("public/shared", pushed, "latest")
    upstreams = {"basic": {"url": basic_registry.url, "registry": "basic.test", **account}}
    with Mirror(tmp_path, make_machine(), upstreams) as mirror:
        for reference in (
            f"{mirror.host('basic')}/public/shared",
            f"{mirror.host()}/basic.test/public/shared",
        ):
            skopeo_pulls(skopeo_machine, f"{reference}:latest", pushed)
    assert mirror.failures() == ""
    assert leaks(tmp_path, {ALICE.password, ALICE.basic.removeprefix("Basic ")}) == []


def test_networks_are_required(
    tmp_path: Path, make_machine: MakeMachine, basic_registry: Registry, account: dict[str, Any]
) -> None:
    """A mirror with an account does not start without ``networks``, and says why."""
    upstreams = {"basic": {"url": basic_registry.url, **account}}
    mirror = Mirror(tmp_path, make_machine(), upstreams, networks=None)
    with pytest.raises(RuntimeError, match="networks: is missing: every client that reaches the mirror"):
        mirror.start()
