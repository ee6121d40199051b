"""An upstream at several addresses: the next one is asked for what the first cannot give, and for no more."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest

from .conftest import MakeDirectory
from .parts.accounts import ALICE
from .parts.authority import Authority
from .parts.chain import Chain
from .parts.clients import skopeo
from .parts.faults import FAILURE, LIMIT, Fault
from .parts.images import Image, artifact, image
from .parts.kept import growing_file, holds, length
from .parts.machine import Machine
from .parts.process import wait_until
from .parts.registry import Registry
from .parts.registry import token_registry as new_token_registry
from .parts.stream import fetched
from .parts.tokens import Tokens
from .pulls import refused, skopeo_pulls

pytestmark = pytest.mark.integration

NAME = "public/several"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def others_tokens(authority: Authority) -> Iterator[Tokens]:
    """The token service of the other."""
    with Tokens(authority, host="127.0.0.5") as service:
        yield service


@pytest.fixture(scope="module")
def other(directory: MakeDirectory, authority: Authority, others_tokens: Tokens) -> Iterator[Registry]:
    """Another registry, with a token service of its own."""
    with new_token_registry(directory("other"), authority, others_tokens) as process:
        yield process


def several(chain: Chain, other: Registry, others_tokens: Tokens, **more: Any) -> None:
    """Starts the mirror of the chain anew, with both addresses."""
    docker = {
        "url": [chain.front.url, other.url],
        "realms": [chain.tokens.url, others_tokens.url],
        "allow_networks": ["127.0.0.0/8"],
        "public": True,
        **more,
    }
    chain.mirror.stop()
    chain.mirror.configure(upstreams={"docker": docker})
    chain.mirror.start()


@pytest.fixture
def pushed(chain: Chain, other: Registry, others_tokens: Tokens, request: pytest.FixtureRequest) -> Image:
    """An image that both have, and no other test."""
    both = image(request.node.name)
    for registry in (chain.registry, other):
        registry.push(NAME, both, "latest")
    others_tokens.requests.clear()
    return both


@pytest.mark.parametrize("fault", [None, FAILURE, LIMIT], ids=["down", "500", "429"])
def test_another_registry(
    chain: Chain,
    other: Registry,
    others_tokens: Tokens,
    pushed: Image,
    skopeo_machine: Machine,
    fault: Fault | None,
) -> None:
    """The second registry gives an image by its digest, and gets no request for tags, and no password."""
    several(chain, other, others_tokens)
    chain.front.fault = fault
    with chain.front.stopped() if fault is None else nullcontext():
        for _ in range(2):
            skopeo_pulls(skopeo_machine, f"{chain.mirror.host()}/docker.io/{NAME}@{pushed.digest}", pushed)
        assert chain.mirror.client().manifest(f"docker.io/{NAME}", "latest").status in (429, 500, 502)
        login = chain.mirror.client("docker", ALICE).manifest("private/other", pushed.digest)
        assert login.status in (401, 429, 500, 502)
    wait_until(lambda: holds(chain.mirror.cache, f"docker.io/{NAME}", pushed), "the image is held")
    chain.front.fault = None
    assert {each.account for each in others_tokens.requests} == {None}
    asked = [each.path for each in other.accesses("GET", NAME) if each.status == 200]
    assert sorted(asked) == sorted({*asked}), "each is fetched once"
    assert not any("latest" in path or "tags" in path for path in asked)


def test_a_replica(
    chain: Chain, other: Registry, others_tokens: Tokens, pushed: Image, skopeo_machine: Machine
) -> None:
    """A replica gives tags, and private images after a login at its own token service."""
    alices = image("alice's replica")
    other.push("private/replica", alices, "latest")
    several(chain, other, others_tokens, replicas=True)
    with chain.front.stopped():
        skopeo_pulls(skopeo_machine, f"{chain.mirror.host()}/docker.io/{NAME}:latest", pushed)
        private = f"{chain.mirror.host('docker')}/private/replica:latest"
        skopeo_pulls(skopeo_machine, private, alices, ALICE)
        nobody = skopeo(skopeo_machine, "inspect", "--raw", "--tls-verify=false", f"docker://{private}")
        refused(nobody, "unauthorized", "denied")
    assert ALICE.name in {each.account for each in others_tokens.requests}


def test_rest_of_blob(chain: Chain, other: Registry, others_tokens: Tokens) -> None:
    """A blob whose first registry stops in the middle is completed by the other."""
    several(chain, other, others_tokens)
    pushed = artifact("rest", size=8 * MIB)
    digest = pushed.layers[0].digest
    for registry in (chain.registry, other):
        registry.push(NAME, pushed, "rest")
    growing = growing_file(chain.mirror.cache, digest)
    with ThreadPoolExecutor(1) as pool, chain.blobs.valve.shut(4 * MIB):
        reading = pool.submit(fetched, chain.mirror, NAME, digest)
        wait_until(lambda: length(growing) >= 4 * MIB, "half of it has come")
        with chain.front.stopped(), chain.blobs.stopped():
            assert reading.result() == digest
    assert [each.status for each in other.accesses("GET", digest)] == [401, 206]
