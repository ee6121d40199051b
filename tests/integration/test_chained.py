"""A mirror whose upstream is another mirror."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import MakeChain, MakeDirectory, MakeMachine
from .parts.accounts import ALICE
from .parts.chain import Chain
from .parts.clients import skopeo
from .parts.command import dockmirror
from .parts.images import index
from .parts.machine import Machine
from .parts.mirror import Mirror
from .pulls import refused, skopeo_pulls, succeeded

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def outer(chains: MakeChain) -> Iterator[Chain]:
    """The mirror that reaches the registry."""
    with chains() as chain:
        yield chain


def upstream(outer: Chain) -> dict[str, dict[str, Any]]:
    """The settings of the inner mirror's upstream; the name is only known here."""
    host = outer.mirror.host("docker")
    return {"docker": {"url": f"http://{host}", "addresses": {host.partition(":")[0]: ["127.0.0.1"]}}}


@pytest.fixture(scope="module")
def inner(outer: Chain, directory: MakeDirectory, make_machine: MakeMachine) -> Iterator[Mirror]:
    """The mirror that reaches only the other one, by its virtual host, as the document's settings say."""
    with Mirror(directory("inner"), make_machine(), upstream(outer)) as mirror:
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
        inner = Mirror(directory("refused"), make_machine(), upstream(outer))
        checked = dockmirror(inner, "check", "docker", "--json")
    assert checked.returncode == 1
    (last,) = (step for step in json.loads(checked.stdout)[0]["steps"] if not step["ok"])
    assert last["name"] == "/v2/"
    assert "does not serve your network" in last["result"]
