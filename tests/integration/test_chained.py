"""Mirrors whose upstream is another mirror."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from .conftest import MakeChain, MakeDirectory, MakeMachine
from .parts.accounts import ALICE
from .parts.chain import Chain
from .parts.clients import skopeo
from .parts.command import dockmirror
from .parts.images import image, index
from .parts.machine import Machine
from .parts.mirror import Mirror
from .parts.plain import Response
from .pulls import refused, skopeo_pulls, succeeded

pytestmark = pytest.mark.integration

TTL = 3600
"""Seconds for which no mirror asks about a tag, so that a slow machine sees the same as a fast one."""


@pytest.fixture(scope="module")
def outer(chains: MakeChain) -> Iterator[Chain]:
    """The mirror that reaches the registry."""
    with chains(tag_ttl=TTL) as chain:
        yield chain


def upstream(outer: Mirror) -> dict[str, dict[str, Any]]:
    """The settings of the inner mirror's upstream; the name is only known here."""
    host = outer.host("docker")
    return {"docker": {"url": f"http://{host}", "addresses": {host.partition(":")[0]: ["127.0.0.1"]}}}


@pytest.fixture(scope="module")
def inner(outer: Chain, directory: MakeDirectory, make_machine: MakeMachine) -> Iterator[Mirror]:
    """The mirror that reaches only the other one, by its virtual host, as the document's settings say."""
    with Mirror(directory("inner"), make_machine(), upstream(outer.mirror), tag_ttl=TTL) as mirror:
        yield mirror
    assert mirror.failures() == ""


@pytest.fixture(scope="module")
def branch(inner: Mirror, directory: MakeDirectory, make_machine: MakeMachine) -> Iterator[Mirror]:
    """A third mirror, whose upstream is the inner one."""
    with Mirror(directory("branch"), make_machine(), upstream(inner), tag_ttl=TTL) as mirror:
        yield mirror
    assert mirror.failures() == ""


def test_public(outer: Chain, inner: Mirror, skopeo_machine: Machine) -> None:
    """A public image comes through both, is kept by both, and is served when the outer mirror is gone."""
    pushed = index("chained")
    outer.registry.push("library/chained", pushed, "latest")
    for reference in (
        f"{inner.host('docker')}/chained:latest",
        f"{inner.host()}/docker.io/library/chained:latest",
    ):
        skopeo_pulls(skopeo_machine, reference, pushed)
    asked = len(outer.asked())
    with outer.mirror.killed():
        skopeo_pulls(skopeo_machine, f"{inner.host('docker')}/chained:latest", pushed)
    assert len(outer.asked()) == asked


def test_private(outer: Chain, inner: Mirror, skopeo_machine: Machine) -> None:
    """A login passes through both; who has none is refused."""
    pushed = index("chained private")
    outer.registry.push("private/chained", pushed, "latest")
    reference = f"{inner.host('docker')}/private/chained:latest"
    skopeo_pulls(skopeo_machine, reference, pushed, ALICE)
    refused(
        skopeo(skopeo_machine, "inspect", "--tls-verify=false", f"docker://{reference}"),
        "denied",
        "unauthorized",
    )


def test_check(inner: Mirror) -> None:
    """``dockmirror check`` finds nothing wrong with a mirror as upstream."""
    succeeded(dockmirror(inner, "check", "docker"))


def test_check_of_a_mirror_that_refuses(
    chains: MakeChain, directory: MakeDirectory, make_machine: MakeMachine
) -> None:
    """The step /v2/ fails with its reason, as the tutorial for China says."""
    with chains(networks=["10.0.0.0/8"]) as outer:
        inner = Mirror(directory("refused"), make_machine(), upstream(outer.mirror))
        checked = dockmirror(inner, "check", "docker", "--json")
    assert checked.returncode == 1
    (last,) = (step for step in json.loads(checked.stdout)[0]["steps"] if not step["ok"])
    assert last["name"] == "/v2/"
    assert "does not serve your network" in last["result"]


def outcomes(response: Response) -> list[str]:
    """Return the outcome at each mirror, from the registry's on."""
    assert response.status == 200, response.body
    listed = ",".join(response.headers.get_all("Cache-Status", []))
    return [member.strip().removeprefix("dockmirror; ") for member in listed.split(",")]


def log_lines(mirror: Mirror, path: str) -> list[str]:
    """Return the lines of the access log about a path."""
    return [line for line in mirror.read_log().splitlines() if f" {path} " in line]


def test_three(outer: Chain, inner: Mirror, branch: Mirror) -> None:
    """Each mirror adds to ``Cache-Status``; ``no-cache`` reaches the registry; logs name the pulls."""
    first, second = image("three"), image("three, moved")
    outer.registry.push("library/three", first, "latest")
    client, path = branch.client(), "/v2/docker.io/library/three/manifests/latest"
    pulled = client.request("GET", path)
    assert (pulled.body, outcomes(pulled)) == (first.manifest.data, ["fwd=miss; stored"] * 3)
    for blob in first.blobs:
        assert client.request("GET", f"/v2/docker.io/library/three/blobs/{blob.digest}").body == blob.data
    asked = "/v2/library/three/manifests/latest"
    pull = log_lines(branch, path)[0].split()[9]
    assert f" via {pull}" in log_lines(inner, asked)[0]
    assert f" via {pull},{log_lines(inner, asked)[0].split()[9]}" in log_lines(outer.mirror, asked)[0]

    outer.registry.push("library/three", second, "latest")
    held = client.request("GET", path)
    assert (held.body, outcomes(held)) == (first.manifest.data, ["hit"])
    newest = client.request("GET", path, headers={"Cache-Control": "no-cache"})
    assert newest.body == second.manifest.data
    assert len(outcomes(newest)) == 3
    assert "hit" not in outcomes(newest)


def test_three_without_the_registry(outer: Chain, branch: Mirror) -> None:
    """The mirror that met the failure says so, and the next ones pass that on; the age is the registry's."""
    pushed = image("three, stale")
    outer.registry.push("library/three-stale", pushed, "latest")
    client, path = branch.client(), "/v2/docker.io/library/three-stale/manifests/latest"
    client.request("GET", path)
    for blob in pushed.blobs:
        client.request("GET", f"/v2/docker.io/library/three-stale/blobs/{blob.digest}")
    with outer.upstream_stopped():
        stale = client.request("GET", path, headers={"Cache-Control": "no-cache"})
    assert stale.body == pushed.manifest.data
    assert outcomes(stale) == ["fwd=stale; detail=upstream", *["fwd=stale; detail=confirmed"] * 2]
    assert "served stale" in stale.headers["Warning"]
    assert stale.headers["Age"].isdecimal()
    outer.wait_for_upstream()


def test_three_private(outer: Chain, branch: Mirror) -> None:
    """A login reaches the registry, and what the mirrors hold is given to nobody else."""
    pushed = image("three private")
    outer.registry.push("private/three", pushed, "latest")
    for reference in ("latest", pushed.manifest.digest):
        assert branch.client("docker", ALICE).manifest("private/three", reference).status == 200
        assert branch.client("docker").manifest("private/three", reference).status == 401


@pytest.mark.parametrize("count", [1, 2])
def test_loops(directory: MakeDirectory, make_machine: MakeMachine, count: int) -> None:
    """A mirror that names itself, and two that name each other, say so to the client."""
    unset: dict[str, dict[str, Any]] = {"docker": {}}
    mirrors = [Mirror(directory("loop"), make_machine(), unset) for _ in range(count)]
    for mirror, other in zip(mirrors, [*mirrors[1:], mirrors[0]], strict=True):
        loopback = {"allow_networks": ["127.0.0.0/8"], "public": True}
        mirror.configure(upstreams={"docker": {**loopback, **upstream(other)["docker"]}})
    with ExitStack() as stack:
        for mirror in mirrors:
            stack.enter_context(mirror)
        for host in ("docker", ""):
            answer = mirrors[0].client(host).manifest("library/looped", "latest")
            assert answer.status == 508
            assert b"loop: this mirror got its own request back" in answer.body
