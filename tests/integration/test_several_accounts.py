"""Two accounts of the mirror at one registry with different rights, each for its own repositories."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import MakeChain, MakeDirectory
from .parts.accounts import ALICE, BOB, Account
from .parts.chain import Chain
from .parts.clients import skopeo
from .parts.images import Image, image
from .parts.kept import holds
from .parts.machine import Machine
from .parts.process import wait_until
from .pulls import refused, skopeo_pulls

pytestmark = pytest.mark.integration

PRIVATE, TEAM, PUBLIC = "private/app", "team/app", "library/app"


def table(account: Account, directory: Path, *repositories: str) -> dict[str, Any]:
    """Return the table of an account, whose password lies outside of the mirror's directory."""
    file = directory / account.name
    file.write_text(f"{account.password}\n")
    return {
        "name": f"of-{account.name}",
        "repositories": list(repositories),
        "username": account.name,
        "password_file": str(file),
    }


@pytest.fixture(scope="module")
def passwords(directory: MakeDirectory) -> Path:
    return directory("secrets")


@pytest.fixture(scope="module")
def chain(chains: MakeChain, passwords: Path) -> Iterator[Chain]:
    """A mirror that asks as Alice for what is private, as Bob for the team's, and else anonymously.

    At the end no secret lies in its log or in its cache.
    """
    accounts = [table(ALICE, passwords, "private/*"), table(BOB, passwords, "team/*")]
    with chains(upstream={"accounts": accounts}) as parts:
        yield parts


@pytest.fixture(scope="module")
def images(chain: Chain) -> dict[str, Image]:
    pushed = {name: image(f"for several accounts: {name}") for name in (PRIVATE, TEAM, PUBLIC)}
    for name, each in pushed.items():
        chain.registry.push(name, each, "latest")
    chain.tokens.requests.clear()
    return pushed


def asked_as(chain: Chain) -> set[tuple[str, str | None]]:
    """Return for which repositories tokens were requested, and as whom."""
    return {
        (scope.split(":")[1], each.account)
        for each in chain.tokens.requests
        for scope in each.scopes
        if scope.startswith("repository:")
    }


def test_each_image_is_pulled_with_its_account(
    chain: Chain, images: dict[str, Image], skopeo_machine: Machine
) -> None:
    """Without a login, on both hosts; no token is requested as anybody else."""
    for name, pushed in images.items():
        for host in (chain.mirror.host("docker"), f"{chain.mirror.host()}/docker.io"):
            skopeo_pulls(skopeo_machine, f"{host}/{name}:latest", pushed)
    assert asked_as(chain) == {(PRIVATE, ALICE.name), (TEAM, BOB.name), (PUBLIC, None)}
    assert chain.blobs.requests
    assert not any(each.authorized for each in chain.blobs.requests)


def test_after_a_reload_cached_images_are_refused_to_an_account_without_rights(
    chain: Chain, images: dict[str, Image], passwords: Path, skopeo_machine: Machine
) -> None:
    """Bob may not have what Alice was given, whatever the cache holds; the team's image is Alice's, too."""
    host = chain.mirror.host("docker")
    for name in (PRIVATE, TEAM):
        skopeo_pulls(skopeo_machine, f"{host}/{name}:latest", images[name])
    cache = chain.mirror.cache
    wait_until(
        lambda: all(holds(cache, f"docker.io/{name}", images[name]) for name in (PRIVATE, TEAM)), "held"
    )
    chain.tokens.requests.clear()
    swapped = [table(BOB, passwords, "private/*"), table(ALICE, passwords, "team/*")]
    upstreams = chain.mirror.setting("upstreams")
    chain.mirror.configure(upstreams={"docker": {**upstreams["docker"], "accounts": swapped}})
    os.kill(chain.mirror.pid, signal.SIGHUP)
    wait_until(
        lambda: chain.mirror.client("docker").manifest(PRIVATE, "latest").status == 403, "it is in force"
    )
    for reference in (f"{host}/{PRIVATE}:latest", f"{host}/{PRIVATE}@{images[PRIVATE].digest}"):
        inspected = skopeo(skopeo_machine, "inspect", "--tls-verify=false", f"docker://{reference}")
        refused(inspected, "unauthorized", "denied")
    skopeo_pulls(skopeo_machine, f"{host}/{TEAM}:latest", images[TEAM])
    assert {(PRIVATE, BOB.name), (TEAM, ALICE.name)} <= asked_as(chain)
