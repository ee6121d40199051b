"""Upstreams of which only the repositories below a path are mirrored."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from .conftest import MakeChain, MakeDirectory, MakeMachine
from .parts.accounts import ALICE, BOB, PUBLISHER, Account
from .parts.chain import Chain
from .parts.clients import Containerd
from .parts.images import image, index
from .parts.machine import Machine
from .parts.mirror import Mirror
from .parts.registry import Registry
from .pulls import ctr_pulls, skopeo_pulls
from .pushes import skopeo_pushes

pytestmark = pytest.mark.integration

PUBLIC, PRIVATE = "public/hub", "private/hub"


@pytest.fixture(scope="module")
def chain(chains: MakeChain) -> Iterator[Chain]:
    """A mirror of two parts of one registry: ``docker`` has the public one, ``team`` the private one."""
    with chains(upstream={"writes": True}) as parts:
        upstreams = parts.mirror.setting("upstreams")
        docker = {**upstreams["docker"], "url": f"{parts.front.url}/{PUBLIC}", "short_names": "complete"}
        team = {**upstreams["docker"], "url": f"{parts.front.url}/{PRIVATE}/", "registry": "team.test"}
        parts.mirror.configure(upstreams={"docker": docker, "direct": team})
        parts.mirror.stop()
        parts.mirror.start()
        yield parts


def test_pull_below_a_path(chain: Chain, skopeo_machine: Machine) -> None:
    """A client sees the repositories without the path, and pulls again while the upstream is down."""
    pushed = image("below a path")
    chain.registry.push(f"{PUBLIC}/library/app", pushed, "1", "2", "3")
    reference, before = f"{chain.mirror.host('docker')}/app:1", len(chain.tokens.requests)
    skopeo_pulls(skopeo_machine, reference, pushed)
    assert {scope for each in chain.tokens.requests[before:] for scope in each.scopes} == {
        f"repository:{PUBLIC}/library/app:pull"
    }
    client = chain.mirror.client("docker")
    tags = json.loads(client.request("GET", "/v2/library/app/tags/list").body)["tags"]
    assert sorted(tags) == ["1", "2", "3"]
    with chain.front.stopped(), chain.tokens.stopped():
        skopeo_pulls(skopeo_machine, reference, pushed)
        assert client.manifest("library/app", pushed.digest).body == pushed.manifest.data
    chain.wait_for_upstream()


def test_tokens_are_for_the_upstream_name(chain: Chain, skopeo_machine: Machine) -> None:
    """The registry decides by the name that it knows."""
    pushed = image("of a team")
    chain.registry.push(f"{PRIVATE}/app", pushed, "latest")
    reference = f"{chain.mirror.host('direct')}/app:latest"
    skopeo_pulls(skopeo_machine, reference, pushed, ALICE)
    assert chain.mirror.client("direct", ALICE).manifest("app", "latest").body == pushed.manifest.data
    others: tuple[Account | None, ...] = (None, BOB)
    for account in others:
        assert chain.mirror.client("direct", account).manifest("app", "latest").status == 401


def test_push_below_a_path(chain: Chain, skopeo_machine: Machine) -> None:
    """A push lands below the path."""
    pushed = image("pushed below a path")
    skopeo_pushes(skopeo_machine, f"{chain.mirror.host('direct')}/pushed:latest", pushed, PUBLISHER)
    assert chain.registry.plain.manifest(f"{PRIVATE}/pushed", "latest").body == pushed.manifest.data


def test_mirror_of_a_mirror(
    chain: Chain, directory: MakeDirectory, make_machine: MakeMachine, skopeo_machine: Machine
) -> None:
    """Another mirror's own host serves each registry below its name."""
    pushed = image("through two mirrors")
    chain.registry.push(f"{PUBLIC}/library/chained", pushed, "latest")
    upstreams = {"docker": {"url": f"{chain.mirror.url}/docker.io"}}
    with Mirror(directory("second"), make_machine(), upstreams) as second:
        reference = f"{second.host('docker')}/chained:latest"
        skopeo_pulls(skopeo_machine, reference, pushed)
        with chain.mirror.killed():
            skopeo_pulls(skopeo_machine, reference, pushed)
        assert second.failures() == ""


def test_containerd_goes_to_the_registry_below_the_path(
    open_registry: Registry, containerd: Containerd, directory: MakeDirectory, make_machine: MakeMachine
) -> None:
    """By the file that it has from a mirror that has stopped."""
    pushed = index("past the mirror")
    open_registry.push(f"{PUBLIC}/library/past", pushed, "1")
    upstreams = {"open": {"url": f"{open_registry.url}/{PUBLIC}", "registry": "below.test"}}
    with Mirror(directory("stopped"), make_machine(), upstreams) as mirror:
        file = mirror.client().request("GET", "/client/containerd/below.test").body
    hosts = containerd.hosts("below.test", file.decode())
    ctr_pulls(containerd, "below.test/library/past:1", pushed, f"--hosts-dir={hosts}")
